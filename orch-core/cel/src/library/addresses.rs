//! Addresses and networks.
//!
//! Source: `k8s.io/apiserver/pkg/cel/library/ip.go`, `cidr.go`; Go's `net/netip` for the texts.

use std::any::Any;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::Error;
use crate::evaluate::Context;
use crate::function::{Body, Functions, Overload};
use crate::types::Type;
use crate::value::{Opaque, Value, no_such_overload};

type Outcome<'a> = Result<Value<'a>, Error>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ip(IpAddr);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cidr {
    address: IpAddr,
    bits: u8,
}

fn ip_type() -> Type {
    Type::opaque("net.IP")
}

fn cidr_type() -> Type {
    Type::opaque("net.CIDR")
}

impl Opaque for Ip {
    fn type_of(&self) -> Type {
        ip_type()
    }

    fn equals(&self, other: &dyn Opaque) -> bool {
        other.as_any().downcast_ref() == Some(self)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn size(&self) -> u64 {
        if self.0.is_ipv4() { 4 } else { 16 }
    }

    fn to_text(&self) -> Option<String> {
        Some(self.0.to_string())
    }
}

impl Opaque for Cidr {
    fn type_of(&self) -> Type {
        cidr_type()
    }

    fn equals(&self, other: &dyn Opaque) -> bool {
        other.as_any().downcast_ref() == Some(self)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn size(&self) -> u64 {
        u64::from(self.bits.div_ceil(8))
    }

    fn to_text(&self) -> Option<String> {
        Some(format!("{}/{}", self.address, self.bits))
    }
}

impl Cidr {
    /// The address with all bits behind the prefix set to zero.
    fn masked(self) -> Self {
        Self { address: masked(self.address, self.bits), bits: self.bits }
    }

    fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4()
            && masked(address, self.bits) == self.masked().address
    }
}

fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
        }
    }
}

fn parse_ip(text: &str) -> Result<Ip, Error> {
    let refused = |what: &str| Err(Error::failed(what.to_owned()));
    if let Some((address, _)) = text.split_once('%')
        && address.parse::<Ipv6Addr>().is_ok()
    {
        return refused(&format!("IP address {text:?} with zone value is not allowed"));
    }
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => {
            refused(&format!("IPv4-mapped IPv6 address {text:?} is not allowed"))
        }
        Ok(address) => Ok(Ip(address)),
        Err(_) => refused(&format!(
            "IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): \
             unable to parse IP"
        )),
    }
}

fn parse_cidr(text: &str) -> Result<Cidr, String> {
    let refused = |what: &str| {
        Err(format!(
            "network address parse error during conversion from string: \
             netip.ParsePrefix({text:?}): {what}"
        ))
    };
    let Some((address, bits)) = text.rsplit_once('/') else { return refused("no '/'") };
    let Ok(address) = address.parse::<IpAddr>() else {
        return refused(&format!("ParseAddr({address:?}): unable to parse IP"));
    };
    // No sign, and no zeros in front.
    let plain = bits.bytes().all(|c| c.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
    let Some(length) = bits.parse::<u8>().ok().filter(|_| plain) else {
        return refused(&format!("bad bits after slash: {bits:?}"));
    };
    if length > if address.is_ipv4() { 32 } else { 128 } {
        return refused("prefix length out of range");
    }
    if matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some()) {
        return Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"));
    }
    Ok(Cidr { address, bits: length })
}

fn to_cidr(text: &str) -> Result<Cidr, Error> {
    parse_cidr(text).map_err(|what| {
        Error::failed(format!("network address parse error during conversion from string: {what}"))
    })
}

/// Whether an address is of some kind.
struct Kind(Test);

type Test = fn(&IpAddr) -> bool;

impl Body for Kind {
    fn call<'a>(&self, _: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
        Ok(Value::Bool((self.0)(&ip_of(args)?.0)))
    }
}

pub(super) fn install(functions: &mut Functions) {
    functions.add_type("net.IP", ip_type());
    functions.add_type("net.CIDR", cidr_type());
    let mut add = |name: &'static str, form| functions.add(name, form);
    let text = || [Type::String];
    add("ip", Overload::function("string_to_ip", text(), ip_type(), ip));
    add("isIP", Overload::function("is_ip", text(), Type::Bool, is_ip));
    add("ip.isCanonical", Overload::function("ip_is_canonical", text(), Type::Bool, is_canonical));
    add("family", Overload::method("ip_family", [ip_type()], Type::Int, family));
    add("string", Overload::function("ip_to_string", [ip_type()], Type::String, to_text));
    let kinds: [(&'static str, &'static str, Test); 5] = [
        ("isUnspecified", "ip_is_unspecified", IpAddr::is_unspecified),
        ("isLoopback", "ip_is_loopback", IpAddr::is_loopback),
        ("isLinkLocalMulticast", "ip_is_link_local_multicast", is_link_local_multicast),
        ("isLinkLocalUnicast", "ip_is_link_local_unicast", is_link_local_unicast),
        ("isGlobalUnicast", "ip_is_global_unicast", is_global_unicast),
    ];
    for (name, id, kind) in kinds {
        add(name, Overload::method(id, [ip_type()], Type::Bool, Kind(kind)));
    }
    add("cidr", Overload::function("string_to_cidr", text(), cidr_type(), cidr));
    add("isCIDR", Overload::function("is_cidr", text(), Type::Bool, is_cidr));
    add("string", Overload::function("cidr_to_string", [cidr_type()], Type::String, to_text));
    add("ip", Overload::method("cidr_ip", [cidr_type()], ip_type(), cidr_ip));
    let form = Overload::method("cidr_prefix_length", [cidr_type()], Type::Int, prefix_length);
    add("prefixLength", form);
    add("masked", Overload::method("cidr_masked", [cidr_type()], cidr_type(), cidr_masked));
    let others = [
        ("containsIP", "cidr_contains_ip_string", Type::String),
        ("containsIP", "cidr_contains_ip_ip", ip_type()),
        ("containsCIDR", "cidr_contains_cidr_string", Type::String),
        ("containsCIDR", "cidr_contains_cidr", cidr_type()),
    ];
    for (name, id, other) in others {
        let args = [cidr_type(), other];
        let form = match name {
            "containsIP" => Overload::method(id, args, Type::Bool, contains_ip),
            _ => Overload::method(id, args, Type::Bool, contains_cidr),
        };
        add(name, form);
    }
}

fn is_link_local_multicast(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[..3] == [224, 0, 0],
        IpAddr::V6(address) => {
            let [first, second, ..] = address.octets();
            first == 0xff && second & 0x0f == 0x02
        }
    }
}

fn is_link_local_unicast(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// As Go has it: private addresses are global too.
fn is_global_unicast(address: &IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !broadcast
        && !address.is_unspecified()
        && !address.is_loopback()
        && !address.is_multicast()
        && !is_link_local_unicast(address)
}

fn text_of<'v>(args: &'v [Value<'_>]) -> Result<&'v str, Error> {
    args.first().and_then(Value::as_str).ok_or_else(Error::no_such_overload)
}

fn ip_of<'v>(args: &'v [Value<'_>]) -> Result<&'v Ip, Error> {
    args.first().and_then(Value::downcast).ok_or_else(Error::no_such_overload)
}

fn cidr_of<'v>(args: &'v [Value<'_>]) -> Result<&'v Cidr, Error> {
    args.first().and_then(Value::downcast).ok_or_else(Error::no_such_overload)
}

fn ip<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    parse_ip(text_of(args)?).map(Value::opaque)
}

fn is_ip<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(parse_ip(text_of(args)?).is_ok()))
}

fn is_canonical<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let text = text_of(args)?;
    Ok(Value::Bool(parse_ip(text)?.0.to_string() == text))
}

fn family<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Int(if ip_of(args)?.0.is_ipv4() { 4 } else { 6 }))
}

fn to_text<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Opaque(value)] => value.to_text().map_or_else(no_such_overload, |t| Ok(t.into())),
        _ => no_such_overload(),
    }
}

fn cidr<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    to_cidr(text_of(args)?).map(Value::opaque)
}

fn is_cidr<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(parse_cidr(text_of(args)?).is_ok()))
}

fn cidr_ip<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::opaque(Ip(cidr_of(args)?.address)))
}

fn prefix_length<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Int(cidr_of(args)?.bits.into()))
}

fn cidr_masked<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::opaque(cidr_of(args)?.masked()))
}

fn contains_ip<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let cidr = cidr_of(args)?;
    let address = match args.get(1) {
        Some(Value::String(text)) => parse_ip(text)?.0,
        _ => ip_of(&args[1..])?.0,
    };
    Ok(Value::Bool(cidr.contains(address)))
}

fn contains_cidr<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let cidr = cidr_of(args)?;
    let other = match args.get(1) {
        Some(Value::String(text)) => to_cidr(text)?,
        _ => *cidr_of(&args[1..])?,
    };
    Ok(Value::Bool(cidr.bits <= other.bits && cidr.contains(other.address)))
}
