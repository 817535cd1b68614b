//! Which addresses may be dialled: public ones, and what the operator's allow-list opens.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// What may be dialled. The default admits public addresses only.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq)]
struct Rule {
    target: Target,
    /// `None` opens every port.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq)]
enum Target {
    Name(String),
    Net(IpNet),
}

/// An entry of the allow-list that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not an egress rule: write `host`, `host:port`, `cidr` or `cidr:port` (IPv6 with a port in brackets)")]
pub struct RuleError(String);

/// An address that the policy does not admit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{host}:{port} is {address}, which is not a public address; WEIR_EGRESS_ALLOW can open it")]
pub struct Denied {
    /// The host as the URL names it.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The address it stands for.
    pub address: IpAddr,
}

impl Policy {
    /// Reads an allow-list: entries of the forms `host`, `host:port`, `cidr` and `cidr:port`.
    ///
    /// # Errors
    /// [`RuleError`] names the first entry that cannot be read.
    pub fn parse<S: AsRef<str>>(entries: &[S]) -> Result<Self, RuleError> {
        let entries = entries.iter().map(|entry| entry.as_ref().trim()).filter(|entry| !entry.is_empty());
        let rules = entries.map(|entry| parse_rule(entry).ok_or_else(|| RuleError(entry.to_owned())));
        Ok(Self { rules: rules.collect::<Result<_, _>>()? })
    }

    /// Checks every address that `host` resolved to.
    ///
    /// # Errors
    /// [`Denied`] names the first address that is neither public nor opened by a rule.
    pub fn check(&self, host: &str, port: u16, addresses: impl IntoIterator<Item = IpAddr>) -> Result<(), Denied> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let opened = |rule: &&Rule| rule.port.is_none_or(|open| open == port);
        if self.rules.iter().filter(opened).any(|rule| rule.target == Target::Name(host.clone())) {
            return Ok(());
        }
        for address in addresses {
            // A v4-mapped address is the v4 address to the kernel; rules are written for that.
            let canonical = address.to_canonical();
            let in_net = |rule: &Rule| matches!(&rule.target, Target::Net(net) if net.contains(&canonical));
            if !is_public(address) && !self.rules.iter().filter(opened).any(in_net) {
                return Err(Denied { host, port, address });
            }
        }
        Ok(())
    }
}

fn parse_rule(entry: &str) -> Option<Rule> {
    if let Some(net) = parse_net(entry) {
        return Some(Rule { target: Target::Net(net), port: None });
    }
    if let Some(inner) = entry.strip_prefix('[') {
        let (inner, rest) = inner.split_once(']')?;
        let port = match rest {
            "" => None,
            rest => Some(parse_port(rest.strip_prefix(':')?)?),
        };
        return Some(Rule { target: Target::Net(parse_net(inner)?), port });
    }
    let (host, port) = match entry.split_once(':') {
        Some((host, port)) => (host, Some(parse_port(port)?)),
        None => (entry, None),
    };
    if let Some(net) = parse_net(host) {
        return Some(Rule { target: Target::Net(net), port });
    }
    let label =
        |label: &str| !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    // A URL has such a name in Punycode, and so has its request.
    let host = if host.is_ascii() { host.to_owned() } else { url::Host::parse(host).ok()?.to_string() };
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    // What reads as a number is an address gone wrong, never a name.
    let numeric = host.split('.').next_back().is_some_and(|last| last.chars().all(|c| c.is_ascii_digit()));
    (host.split('.').all(label) && !numeric).then_some(Rule { target: Target::Name(host), port })
}

fn parse_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0)
}

fn parse_net(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// Whether anyone on the internet could be reached at `address`: it is not loopback, private, link-local, shared,
/// multicast, reserved or a metadata service, nor a wrapping (v4-mapped, NAT64) of such an address.
///
/// Follows the IANA special-purpose address registries (RFC 6890 and its updates).
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, d] = address.octets();
    !matches!(
        (a, b, c, d),
        (0 | 10 | 127 | 224..=255, ..)
            | (100, 64..=127, ..)       // shared address space, RFC 6598; a metadata service of one cloud
            | (169, 254, ..)            // link-local; the metadata service of most clouds
            | (172, 16..=31, ..)
            | (192, 168, ..)
            | (192, 0, 0 | 2, _)        // protocol assignments, documentation
            | (192, 88, 99, _)          // 6to4 relays
            | (198, 18 | 19, ..)        // benchmarks
            | (198, 51, 100, _)
            | (203, 0, 113, _)
            | (168, 63, 129, 16) // a cloud's host agent on a public-looking address
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(v4) = embedded_v4(address) {
        return is_public_v4(v4);
    }
    let segments = address.segments();
    let global_unicast = segments[0] & 0xe000 == 0x2000;
    let special = matches!(
        (segments[0], segments[1]),
        (0x2001, 0x0000..=0x01ff)       // protocol assignments, Teredo among them
            | (0x2001, 0x0db8)          // documentation
            | (0x2002, _)               // 6to4: wraps any v4 address
            | (0x3fff, 0x0000..=0x0fff) // documentation, RFC 9637
    );
    global_unicast && !special
}

/// The v4 address inside a v4-mapped address (RFC 4291 section 2.5.5.2) or one under the NAT64 prefix 64:ff9b::/96
/// (RFC 6052): what is really reached.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    if let Some(v4) = address.to_ipv4_mapped() {
        return Some(v4);
    }
    let octets = address.octets();
    let nat64 = octets[..12] == [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0];
    nat64.then(|| Ipv4Addr::new(octets[12], octets[13], octets[14], octets[15]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn only_public_addresses_are_public() {
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::1",
            "2001:db8::1",
            "2001::1",
            "2002:7f00:1::",
            "::127.0.0.1",
            "100::1",
            "3fff::1",
        ] {
            assert!(!is_public(ip(private)), "{private}");
        }
        for public in [
            "1.1.1.1",
            "93.184.216.34",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
        ] {
            assert!(is_public(ip(public)), "{public}");
        }
    }

    #[test]
    fn rules_open_exactly_what_they_say() {
        let policy = Policy::parse(&["Internal.corp:8080", "10.1.0.0/16", "127.0.0.1:9000", "[fd00::/8]:443", "::1"])
            .expect("sound rules");
        let open = |host: &str, port, address: &str| policy.check(host, port, [ip(address)]).is_ok();
        assert!(open("internal.corp", 8080, "192.168.0.9"));
        assert!(open("INTERNAL.corp.", 8080, "192.168.0.9"));
        assert!(!open("internal.corp", 8081, "192.168.0.9"));
        assert!(!open("x.internal.corp", 8080, "192.168.0.9"));
        assert!(open("any", 1, "10.1.200.1") && !open("any", 1, "10.2.0.1"));
        assert!(open("any", 9000, "127.0.0.1") && !open("any", 9001, "127.0.0.1"));
        assert!(open("any", 9000, "::ffff:127.0.0.1"));
        assert!(open("any", 443, "fd12::1") && !open("any", 80, "fd12::1"));
        assert!(open("any", 80, "::1"));
        let policy = Policy::parse(&["München.invalid:80"]).expect("a sound rule");
        policy.check("xn--mnchen-3ya.invalid", 80, [ip("10.0.0.1")]).expect("it is the same name");
    }

    #[test]
    fn one_bad_address_among_good_ones_is_a_denial() {
        let denied = Policy::default().check("both.example", 80, [ip("1.1.1.1"), ip("10.0.0.1")]);
        assert_eq!(denied.expect_err("denied").address, ip("10.0.0.1"));
    }

    #[test]
    fn unreadable_rules_are_refused() {
        for bad in ["http://x", "host:0", "host:99999", "10.0.0.0/33", "a b", "1.2.3", "[::1", "host:port", "*"] {
            assert!(Policy::parse(&[bad]).is_err(), "{bad}");
        }
        Policy::parse(&["", " localhost "]).expect("blanks are nothing");
    }
}
