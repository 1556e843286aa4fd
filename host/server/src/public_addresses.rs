//! Decides which IP addresses the URLs of clients may lead to.
//!
//! A host that fetches arbitrary URLs gives access to its own network: to services that trust every connection, and to the cloud's
//! metadata service, which hands out credentials. So only addresses of the public internet are allowed. IPv6 has a list of allowed
//! blocks, and IPv4 has a list of refused blocks; both follow the IANA special-purpose registries. A host name is checked by the
//! addresses that it resolves to, at the time of the connection, because it can resolve differently a moment later.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Host;

/// IPv4 blocks that are not on the public internet: network and prefix length.
const NON_PUBLIC_IPV4_BLOCKS: [([u8; 4], u32); 17] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    // Carrier-grade NAT, and the metadata service of one cloud.
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    // The host agent of Azure: a public address that every virtual machine reaches locally.
    ([168, 63, 129, 16], 32),
    // Link-local, and the metadata service of most clouds.
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 31, 196, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    // Multicast, and reserved blocks above it.
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
];

/// Whether the address is on the public internet.
pub(crate) fn is_public_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_ipv4(address),
        IpAddr::V6(address) => is_public_ipv6(address),
    }
}

fn is_public_ipv4(address: Ipv4Addr) -> bool {
    let address = address.to_bits();
    !NON_PUBLIC_IPV4_BLOCKS.iter().any(|(network, length)| {
        let network = Ipv4Addr::from_octets(*network).to_bits();
        (address ^ network) >> (32 - length) == 0
    })
}

fn is_public_ipv6(address: Ipv6Addr) -> bool {
    if let Some(mapped) = address.to_ipv4_mapped() {
        return is_public_ipv4(mapped);
    }
    let [a, b, .., y, z] = address.segments();
    let inner = Ipv4Addr::from_bits(u32::from(y) << 16 | u32::from(z));
    match (a, b) {
        // IPv4 addresses behind a translator (RFC 6052).
        (0x64, 0xff9b) => address.segments().iter().skip(2).take(4).all(|s| *s == 0) && is_public_ipv4(inner),
        // Blocks of protocols, tunnels whose inner address would have to be checked too, and documentation.
        (0x2001, 0..=0x1ff | 0xdb8) | (0x2002, _) | (0x3fff, 0..=0xfff) => false,
        _ => a >> 13 == 1,
    }
}

/// The error for a host name or address that is not on the public internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotPublicError;

impl fmt::Display for NotPublicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("its address is not on the public internet")
    }
}

impl std::error::Error for NotPublicError {}

/// Refuses a host that is a literal address outside the public internet. Literal addresses never reach the resolver.
pub(crate) fn check_literal_host_is_public(host: &Host<&str>) -> Result<(), NotPublicError> {
    let public = match host {
        Host::Domain(_) => true,
        Host::Ipv4(address) => is_public_ipv4(*address),
        Host::Ipv6(address) => is_public_ipv6(*address),
    };
    if public { Ok(()) } else { Err(NotPublicError) }
}

/// The resolver of the system, reduced to public addresses.
pub(crate) struct PublicAddressResolver;

impl Resolve for PublicAddressResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|address| is_public_address(address.ip())).collect();
            if public.is_empty() {
                return Err(NotPublicError.into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

impl PublicAddressResolver {
    pub(crate) fn new_shared() -> Arc<Self> {
        Arc::new(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parses_as_public(address: &str) -> bool {
        is_public_address(address.parse().unwrap())
    }

    #[test]
    fn public_addresses_are_allowed() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "168.63.129.17",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2a00:1450::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ] {
            assert!(parses_as_public(address), "{address}");
        }
    }

    #[test]
    fn non_public_addresses_are_refused() {
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::808:808",
            "100::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "2002:7f00:1::",
            "3fff::1",
            "5f00::1",
        ] {
            assert!(!parses_as_public(address), "{address}");
        }
    }

    #[test]
    fn alternative_notations_of_an_address_are_recognized() {
        for url in [
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f.0.0.1/",
            "http://0177.0.0.1/",
            "http://[::ffff:7f00:1]/",
            "http://[::]/",
            "http://0/",
            "http://169.254.169.254./",
        ] {
            let url = url::Url::parse(url).unwrap();
            assert_eq!(
                check_literal_host_is_public(&url.host().unwrap()),
                Err(NotPublicError),
                "{url}"
            );
        }
    }

    #[tokio::test]
    async fn host_name_is_checked_by_its_addresses() {
        let resolved = PublicAddressResolver.resolve("localhost".parse().unwrap()).await;
        assert!(resolved.err().unwrap().downcast_ref::<NotPublicError>().is_some());
    }
}
