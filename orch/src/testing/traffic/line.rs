//! One line of recorded traffic.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The version of the format that is written and read here.
pub(super) const VERSION: u32 = 1;

/// What went over the wire, in the order in which it did. Times are milliseconds since the
/// recording began.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub(super) enum Line {
    /// The first line, and no other.
    Traffic {
        version: u32,
        /// Whether what is in Secrets is in it.
        secret_data: bool,
    },
    /// A request.
    Asked {
        at: u64,
        exchange: u64,
        method: String,
        path: String,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        query: String,
        #[serde(default, skip_serializing_if = "Content::is_empty")]
        body: Content,
    },
    /// Its answer: whole, or the beginning of one that comes in parts.
    Answered {
        at: u64,
        exchange: u64,
        status: u16,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content_type: Option<String>,
        #[serde(default, skip_serializing_if = "Content::is_empty")]
        body: Content,
    },
    /// A part: an event of a watch, some lines of a log.
    Part { at: u64, exchange: u64, body: Content },
    /// There are no more parts.
    Ended { at: u64, exchange: u64 },
    /// The connection broke, before the answer or in the middle of it.
    Broke { at: u64, exchange: u64, error: String },
}

/// A body.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Content {
    #[default]
    Empty,
    Json(Value),
    Text(String),
    Base64(String),
    /// It was not written down, for this reason.
    LeftOut(String),
}

impl Content {
    pub(super) fn of(bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            return Self::Empty;
        }
        if let Ok(value) = serde_json::from_slice(bytes) {
            return Self::Json(value);
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Base64(BASE64_STANDARD.encode(bytes)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::Empty
    }

    /// The bytes, if they were written down.
    pub(super) fn bytes(&self) -> Result<Bytes, String> {
        match self {
            Self::Empty => Ok(Bytes::new()),
            Self::Json(value) => Ok(value.to_string().into()),
            Self::Text(text) => Ok(text.clone().into()),
            Self::Base64(text) => {
                BASE64_STANDARD.decode(text).map(Bytes::from).map_err(|error| error.to_string())
            }
            Self::LeftOut(why) => Err(why.clone()),
        }
    }
}
