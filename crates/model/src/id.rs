//! Identifiers: 64 hexadecimal digits, shown as the first 12.

use serde::{Deserialize, Serialize};
use std::fmt;

use crate::{Error, Result};

/// How many digits of an identifier are shown.
pub const SHORT: usize = 12;

macro_rules! id {
    ($name:ident, $what:literal) => {
        #[doc = concat!("The identifier of a ", $what, ": 64 lower-case hexadecimal digits.")]
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// From 32 random bytes. The caller brings the randomness.
            pub fn from_bytes(bytes: [u8; 32]) -> Self {
                use std::fmt::Write as _;
                let mut text = String::with_capacity(64);
                for byte in bytes {
                    write!(text, "{byte:02x}").expect("writing to a String cannot fail");
                }
                Self(text)
            }
            /// Parses a full identifier.
            ///
            /// # Errors
            /// Anything but 64 lower-case hexadecimal digits is an invalid argument.
            pub fn parse(text: &str) -> Result<Self> {
                if text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
                {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(Error::invalid(format!("{} id {text:?}: want 64 hexadecimal digits", $what)))
                }
            }
            /// All 64 digits.
            pub fn as_str(&self) -> &str {
                &self.0
            }
            /// The first 12 digits.
            pub fn short(&self) -> &str {
                &self.0[..SHORT]
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.short())
            }
        }
        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self> {
                Self::parse(&text)
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

id!(ContainerId, "container");
id!(NetworkId, "network");
