//! Networks as they are declared, and pure decisions about addresses.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use crate::{Error, NetworkId, Result, time::Timestamp};

/// A network, as `networks/<name>/network.json` keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// Its name.
    pub name: String,
    /// Its identifier.
    pub id: NetworkId,
    /// When it was made.
    pub created: Timestamp,
    /// `bridge`, `host`, `null`, `macvlan`, `ipvlan`.
    pub driver: String,
    /// Subnets, IPv4 first.
    pub subnets: Vec<Subnet>,
    /// `--internal`: no way out.
    pub internal: bool,
    /// `--attachable`, kept for inspect.
    pub attachable: bool,
    /// `--ipv4`.
    #[serde(default = "yes")]
    pub ipv4: bool,
    /// `--ipv6`.
    pub ipv6: bool,
    /// `-o`.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

fn yes() -> bool {
    true
}

/// One subnet of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// The subnet.
    pub net: Cidr,
    /// The gateway: the bridge's own address.
    pub gateway: Option<IpAddr>,
    /// `--ip-range`.
    pub range: Option<Cidr>,
    /// `--aux-address`.
    pub aux: BTreeMap<String, IpAddr>,
}

/// An address range: `172.17.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    /// The address as written, host bits included.
    pub address: IpAddr,
    /// Prefix length.
    pub prefix: u8,
}

impl Cidr {
    /// Parses `address/prefix`.
    ///
    /// # Errors
    /// An invalid argument that shows the text.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || Error::invalid(format!("subnet {text:?}: want address/prefix, such as 10.88.0.0/16"));
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        if prefix > if address.is_ipv4() { 32 } else { 128 } {
            return Err(bad());
        }
        Ok(Self { address, prefix })
    }
    /// The IPv4 network and broadcast addresses as numbers; `None` for IPv6.
    pub fn v4_bounds(&self) -> Option<(u32, u32)> {
        let IpAddr::V4(address) = self.address else { return None };
        let mask = if self.prefix == 0 { 0 } else { u32::MAX << (32 - u32::from(self.prefix)) };
        let first = u32::from(address) & mask;
        Some((first, first | !mask))
    }
    /// Whether an address lies inside.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.bits_of(self.address).zip(self.bits_of(ip)).is_some_and(|(a, b)| {
            let width = if self.address.is_ipv4() { 32 } else { 128 };
            let shift = width - u32::from(self.prefix);
            a.checked_shr(shift).unwrap_or(0) == b.checked_shr(shift).unwrap_or(0)
        })
    }
    /// Whether two ranges share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }
    fn bits_of(&self, ip: IpAddr) -> Option<u128> {
        match (self.address, ip) {
            (IpAddr::V4(_), IpAddr::V4(ip)) => Some(u128::from(u32::from(ip))),
            (IpAddr::V6(_), IpAddr::V6(ip)) => Some(u128::from(ip)),
            _ => None,
        }
    }
    /// The range with host bits cleared.
    #[must_use]
    pub fn network(&self) -> Self {
        let address = match self.address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(self.v4_bounds().map_or(0, |bounds| bounds.0))),
            IpAddr::V6(ip) => {
                let mask = if self.prefix == 0 { 0 } else { u128::MAX << (128 - u32::from(self.prefix)) };
                IpAddr::V6((u128::from(ip) & mask).into())
            }
        };
        Self { address, prefix: self.prefix }
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}
impl TryFrom<String> for Cidr {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}
impl From<Cidr> for String {
    fn from(cidr: Cidr) -> String {
        cidr.to_string()
    }
}
