//! The values of options.

use std::str::FromStr;

use orch::controllers::load_balancer::PoolRange;

/// `--store`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreChoice {
    Memory,
    Durable,
    Etcd(String),
}

impl FromStr for StoreChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("etcd=")) {
            ("memory", _) => Ok(Self::Memory),
            ("durable", _) => Ok(Self::Durable),
            (_, Some(url)) if !url.is_empty() => Ok(Self::Etcd(url.to_owned())),
            _ => Err("expected memory, durable or etcd=URL (etcd=http://127.0.0.1:2379)".into()),
        }
    }
}

/// `--runtime`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RuntimeChoice {
    Auto,
    Process,
    /// The socket, if one was named.
    Cri(Option<String>),
    Simulated,
}

impl FromStr for RuntimeChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("cri=")) {
            ("auto", _) => Ok(Self::Auto),
            ("process", _) => Ok(Self::Process),
            ("simulated", _) => Ok(Self::Simulated),
            ("cri", _) => Ok(Self::Cri(None)),
            (_, Some(socket)) if !socket.is_empty() => Ok(Self::Cri(Some(socket.to_owned()))),
            _ => Err("expected auto, process, cri, cri=SOCKET or simulated".into()),
        }
    }
}

/// `--proxy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxyChoice {
    Auto,
    Userspace,
    Nftables,
    Off,
}

impl FromStr for ProxyChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "userspace" => Ok(Self::Userspace),
            "nftables" => Ok(Self::Nftables),
            "off" => Ok(Self::Off),
            _ => Err("expected auto, userspace, nftables or off".into()),
        }
    }
}

/// `--load-balancer`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PoolChoice {
    Auto,
    Off,
    Ranges(Vec<PoolRange>),
}

impl FromStr for PoolChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            _ => {
                let ranges = text.split(',').map(str::parse).collect::<Result<_, _>>();
                ranges.map(Self::Ranges).map_err(|error| error.to_string())
            }
        }
    }
}

/// A value, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Off<T>(pub(crate) Option<T>);

impl<T: FromStr<Err: ToString>> FromStr for Off<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self(None)),
            _ => text.parse().map(|value| Self(Some(value))).map_err(|e: T::Err| e.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_and_runtimes_are_read_from_their_names() {
        assert_eq!("memory".parse(), Ok(StoreChoice::Memory));
        let etcd = StoreChoice::Etcd("http://127.0.0.1:2379".into());
        assert_eq!("etcd=http://127.0.0.1:2379".parse(), Ok(etcd));
        assert!("etcd=".parse::<StoreChoice>().is_err());
        assert_eq!("cri".parse(), Ok(RuntimeChoice::Cri(None)));
        assert_eq!("cri=/run/x.sock".parse(), Ok(RuntimeChoice::Cri(Some("/run/x.sock".into()))));
        assert!("docker".parse::<RuntimeChoice>().is_err());
        assert_eq!("auto".parse(), Ok(PoolChoice::Auto));
        let ranges = "192.0.2.0/24,fd00::1-fd00::9".parse::<PoolChoice>();
        assert!(matches!(ranges, Ok(PoolChoice::Ranges(ranges)) if ranges.len() == 2));
        assert!("192.0.2.0/24,".parse::<PoolChoice>().is_err());
        assert_eq!("off".parse::<Off<u16>>(), Ok(Off(None)));
        assert_eq!("80".parse(), Ok(Off(Some(80u16))));
    }
}
