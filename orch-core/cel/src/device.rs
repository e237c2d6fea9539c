//! Selectors of devices: the expressions of device classes and of claims, and what they see.
//!
//! Source: `k8s.io/dynamic-resource-allocation/cel/compile.go`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

use crate::cost::{Range, Sizes};
use crate::environment::{CompileError, Environment, Program};
use crate::error::Error;
use crate::evaluate::Variables;
use crate::library::{quantity, quantity_type, semver};
use crate::types::Type;
use crate::value::{Map, Value};

/// What one selector may cost on one device, and the most that its estimate may say.
pub const SELECTOR_COST_MAX: u64 = 1_000_000;
/// How long a selector may be, in bytes.
pub const SELECTOR_BYTES_MAX: usize = 10 * 1024;

const ATTRIBUTES_MAX: u64 = 32;
const ATTRIBUTE_VALUE_MAX: u64 = 64;
const DOMAIN_MAX: u64 = 63;
const ID_MAX: u64 = 32;
const DRIVER_MAX: u64 = 63;

/// Why an expression is no selector. `Display` is upstream's message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SelectorError {
    /// It is not well formed, does not fit its types, or is no truth value.
    Invalid(String),
    /// What is constant in it fails.
    Internal(String),
}

impl fmt::Display for SelectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(text) | Self::Internal(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for SelectorError {}

/// A compiled selector. Cheap to clone.
///
/// Differs: attributes have the type `dyn` here, and `any` in upstream's messages.
///
/// ```
/// use orch_cel::device::{Attribute, Device, Selector};
///
/// let selector = Selector::compile("device.attributes['dra.example.com'].memory > 4").unwrap();
/// let mut device = Device::new("dra.example.com", false);
/// device.attribute("memory", Attribute::Int(8)).unwrap();
/// assert_eq!(selector.matches(&device.finish().unwrap()), Ok(true));
/// ```
#[derive(Clone, Debug)]
pub struct Selector {
    program: Program,
}

/// The variable `device`.
fn environment() -> &'static Environment {
    static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        let by_domain = |of: Type| Type::map(Type::String, Type::map(Type::String, of));
        let fields = [
            ("driver", Type::String),
            ("allowMultipleAllocations", Type::Bool),
            ("attributes", by_domain(Type::Dyn)),
            ("capacity", by_domain(quantity_type())),
        ];
        let fields = fields.map(|(name, of)| (name.to_owned(), of));
        Environment::kubernetes()
            .computed("device", "kubernetes.DRADevice", fields)
            .bindings()
            .build()
    })
}

/// How large what a device has can be.
struct DeviceSizes;

impl Sizes for DeviceSizes {
    fn size(&self, path: &[String]) -> Option<Range> {
        let mut steps = path.iter().map(String::as_str);
        if steps.next() != Some("device") {
            return None;
        }
        let field = steps.next();
        let steps: Vec<&str> = steps.collect();
        let is_value = |step: &str| matches!(step, "@items" | "@values");
        let max = match (field, steps.as_slice()) {
            (None, _) => 0,
            (Some("driver"), []) => DRIVER_MAX,
            (Some("allowMultipleAllocations"), []) => 1,
            (Some("attributes" | "capacity"), []) => ATTRIBUTES_MAX,
            (Some("attributes" | "capacity"), ["@keys"]) => DOMAIN_MAX,
            (Some("attributes" | "capacity"), [step]) if is_value(step) => ATTRIBUTES_MAX,
            (Some("attributes" | "capacity"), [step, "@keys"]) if is_value(step) => ID_MAX,
            // Every attribute has a value of the same largest size, whatever its name.
            (Some("attributes"), [step, _]) if is_value(step) => ATTRIBUTE_VALUE_MAX,
            (Some("capacity"), [step, value]) if is_value(step) && is_value(value) => 0,
            _ => return None,
        };
        Some(Range { min: 0, max })
    }
}

impl Selector {
    /// Parses and checks an expression.
    ///
    /// # Errors
    ///
    /// [`SelectorError`] if it is no selector.
    pub fn compile(expression: &str) -> Result<Self, SelectorError> {
        let program = environment().compile(expression).map_err(|error| match error {
            CompileError::Instantiation(error) => {
                SelectorError::Internal(format!("program instantiation failed: {error}"))
            }
            issues => SelectorError::Invalid(format!("compilation failed: {issues}")),
        })?;
        match program.result_type() {
            Type::Bool | Type::Dyn => Ok(Self { program }),
            other => Err(SelectorError::Invalid(format!(
                "must evaluate to bool or the unknown type, not {other}"
            ))),
        }
    }

    /// The most that it can cost on one device.
    pub fn cost_max(&self) -> u64 {
        self.program.estimate(&DeviceSizes).max
    }

    /// Whether a device is selected.
    ///
    /// # Errors
    ///
    /// [`Error`] if the expression fails, costs more than [`SELECTOR_COST_MAX`], or has a value
    /// that is no truth value.
    pub fn matches(&self, device: &DeviceValues<'_>) -> Result<bool, Error> {
        let (value, _) = self.program.measure(&device.variables, None, SELECTOR_COST_MAX);
        let value = value?;
        value.as_bool().ok_or_else(|| {
            let of = value.type_of();
            let of = of.name();
            let why = match &value {
                Value::String(_) => "unsupported native conversion from string to 'bool'".into(),
                _ => format!("unsupported type conversion from '{of}' to bool"),
            };
            Error::failed(format!("CEL result of type {of} could not be converted to bool: {why}"))
        })
    }
}

/// The value of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute<'d> {
    /// A number.
    Int(i64),
    /// A truth value.
    Bool(bool),
    /// A string.
    String(&'d str),
    /// A semantic version.
    Version(&'d str),
}

type ByDomain<'d> = BTreeMap<&'d str, Vec<(Value<'d>, Value<'d>)>>;

/// A device as it is put together.
#[derive(Clone, Debug)]
pub struct Device<'d> {
    driver: &'d str,
    multiple: bool,
    attributes: ByDomain<'d>,
    capacity: ByDomain<'d>,
}

/// A device as expressions see it.
#[derive(Clone, Debug)]
pub struct DeviceValues<'d> {
    variables: Variables<'d>,
}

impl<'d> Device<'d> {
    /// A device without attributes. The driver is the domain of every name without one.
    pub fn new(driver: &'d str, allow_multiple_allocations: bool) -> Self {
        let (attributes, capacity) = (ByDomain::new(), ByDomain::new());
        Self { driver, multiple: allow_multiple_allocations, attributes, capacity }
    }

    fn split(&self, name: &'d str) -> (&'d str, &'d str) {
        name.split_once('/').unwrap_or((self.driver, name))
    }

    /// Adds an attribute, whose name may have a domain.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if the value is no version, though it should be one.
    pub fn attribute(&mut self, name: &'d str, value: Attribute<'d>) -> Result<(), Error> {
        let value = match value {
            Attribute::Int(value) => Value::Int(value),
            Attribute::Bool(value) => Value::Bool(value),
            Attribute::String(value) => Value::text(value),
            Attribute::Version(text) => semver(text).map_err(|error| {
                Error::failed(format!("attribute {name}: parse semantic version: {error}"))
            })?,
        };
        let (domain, id) = self.split(name);
        self.attributes.entry(domain).or_default().push((Value::text(id), value));
        Ok(())
    }

    /// Adds a capacity, a quantity, whose name may have a domain.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if the text is no quantity.
    pub fn capacity(&mut self, name: &'d str, amount: &str) -> Result<(), Error> {
        let (domain, id) = self.split(name);
        let value = quantity(amount)?;
        self.capacity.entry(domain).or_default().push((Value::text(id), value));
        Ok(())
    }

    /// The device for any number of evaluations.
    ///
    /// # Errors
    ///
    /// None in practice: all keys are strings.
    pub fn finish(self) -> Result<DeviceValues<'d>, Error> {
        // A domain that the device knows nothing of has no attributes, rather than being missing.
        let nested = |domains: ByDomain<'d>| {
            let domains = domains.into_iter();
            let domains = domains
                .map(|(domain, entries)| Ok((Value::text(domain), Value::Map(Map::of(entries)?))));
            let domains: Result<Vec<_>, Error> = domains.collect();
            Ok::<_, Error>(Value::Map(Map::of(domains?)?.with_default(Value::Map(Map::of([])?))))
        };
        let device = Map::of([
            (Value::text("driver"), Value::text(self.driver)),
            (Value::text("allowMultipleAllocations"), Value::Bool(self.multiple)),
            (Value::text("attributes"), nested(self.attributes)?),
            (Value::text("capacity"), nested(self.capacity)?),
        ])?;
        Ok(DeviceValues { variables: Variables::new().with("device", Value::Map(device)) })
    }
}
