use std::sync::Arc;

use parking_lot::Mutex;

use super::{super::UpstreamUrl, lookup::LookupResult, *};

/// Priority, host and port.
type Srv = (u16, &'static str, u16);

/// Records by name; a lookup of a missing name fails.
#[derive(Default)]
struct Zone {
    services: Mutex<Option<Vec<Srv>>>,
    addresses: Mutex<HashMap<(&'static str, Family), Vec<&'static str>>>,
}

impl DnsLookup for Arc<Zone> {
    fn prepare(&mut self) -> Result<(), NetError> {
        Ok(())
    }

    fn on_failure(&mut self) {}

    async fn addresses(&self, host: &Name, family: Family) -> Result<LookupResult<IpAddr>, NetError> {
        let all = self.addresses.lock();
        let entry = all.iter().find(|((name, entry_family), _)| *entry_family == family && *host == Name::from_ascii(name).unwrap());
        let (_, ips) = entry.ok_or_else(|| NetError::from("no answer"))?;
        Ok(LookupResult { records: ips.iter().map(|ip| ip.parse().unwrap()).collect(), ttl: Duration::from_secs(9) })
    }

    async fn srv_records(&self, _: &Name) -> Result<LookupResult<SrvRecord>, NetError> {
        let records = self.services.lock().clone().ok_or_else(|| NetError::from("no answer"))?;
        let service = |(priority, host, port)| SrvRecord { priority, host: Name::from_ascii(host).unwrap(), port };
        Ok(LookupResult { records: records.into_iter().map(service).collect(), ttl: Duration::from_secs(5) })
    }
}

impl Zone {
    fn set(&self, name: &'static str, v4: Option<&[&'static str]>, v6: Option<&[&'static str]>) {
        let mut all = self.addresses.lock();
        for (family, ips) in [(Family::V4, v4), (Family::V6, v6)] {
            match ips {
                Some(ips) => drop(all.insert((name, family), ips.to_vec())),
                None => drop(all.remove(&(name, family))),
            }
        }
    }
}

fn dns(url: &str) -> (Dns<Arc<Zone>>, Arc<Zone>) {
    let UpstreamUrl::Dns(question) = UpstreamUrl::parse(url).unwrap() else { panic!("not DNS") };
    let zone = Arc::<Zone>::default();
    (Dns { lookup: zone.clone(), target: question, previous: HashMap::new() }, zone)
}

async fn names(dns: &mut Dns<Arc<Zone>>) -> Vec<String> {
    let mut names: Vec<_> = dns.resolve().await.unwrap().addresses.iter().map(|address| address.name().to_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn failed_family_keeps_its_last_addresses() {
    let (mut dns, zone) = dns("dns://products:5000");
    assert!(dns.resolve().await.is_err());
    zone.set("products", Some(&["10.0.0.1"]), None);
    assert_eq!(names(&mut dns).await, ["10.0.0.1:5000"]);
    zone.set("products", Some(&["10.0.0.1"]), Some(&["fd00::1"]));
    assert_eq!(names(&mut dns).await, ["10.0.0.1:5000", "[fd00::1]:5000"]);
    zone.set("products", Some(&["10.0.0.2"]), None);
    let resolved = dns.resolve().await.unwrap();
    assert_eq!((resolved.addresses.len(), resolved.stale_part), (2, true));
    assert_eq!(names(&mut dns).await, ["10.0.0.2:5000", "[fd00::1]:5000"]);
    zone.set("products", None, None);
    assert!(dns.resolve().await.is_err());
    zone.set("products", None, Some(&[]));
    assert_eq!(names(&mut dns).await, ["10.0.0.2:5000"], "the last known address outlives a failed lookup");
}

#[tokio::test]
async fn non_unicast_addresses_are_rejected() {
    let (mut dns, zone) = dns("dns://products:5000");
    zone.set("products", Some(&["0.0.0.0", "255.255.255.255", "224.0.0.1", "10.0.0.1"]), Some(&["::", "ff02::1", "::ffff:0.0.0.0"]));
    let resolved = dns.resolve().await.unwrap();
    assert_eq!((resolved.addresses.len(), resolved.invalid), (1, 6));
}

#[tokio::test]
async fn srv_uses_lowest_priority_only() {
    let (mut dns, zone) = dns("srv://_products._tcp.example");
    zone.set("a.example.", Some(&["10.0.0.1", "10.0.0.2"]), Some(&[]));
    zone.set("b.example.", Some(&["10.0.0.3"]), Some(&[]));
    zone.set("spare.example.", Some(&["10.0.0.9"]), Some(&[]));
    let records = [(1, "a.example.", 5000), (1, "b.example.", 5001), (1, "b.example.", 5001), (2, "spare.example.", 5000)];
    *zone.services.lock() = Some(records.to_vec());
    assert_eq!(names(&mut dns).await, ["10.0.0.1:5000", "10.0.0.2:5000", "10.0.0.3:5001"]);
    assert_eq!(dns.resolve().await.unwrap().ttl, Duration::from_secs(5));
    *zone.services.lock() = Some(vec![(0, ".", 5000), (0, "a.example.", 0), (2, "spare.example.", 5000)]);
    let resolved = dns.resolve().await.unwrap();
    assert_eq!((resolved.addresses.len(), resolved.invalid), (1, 2));
    *zone.services.lock() = None;
    assert!(dns.resolve().await.is_err());
}

#[tokio::test]
async fn failed_host_lookup_keeps_other_hosts() {
    let (mut dns, zone) = dns("srv://_products._tcp.example");
    *zone.services.lock() = Some(vec![(1, "a.example.", 5000), (1, "b.example.", 5000)]);
    zone.set("a.example.", Some(&["10.0.0.1"]), Some(&[]));
    assert_eq!(names(&mut dns).await, ["10.0.0.1:5000"]);
    zone.set("b.example.", Some(&["10.0.0.2"]), Some(&[]));
    zone.set("a.example.", None, None);
    assert_eq!(names(&mut dns).await, ["10.0.0.1:5000", "10.0.0.2:5000"]);
    *zone.services.lock() = Some(vec![]);
    assert!(dns.resolve().await.unwrap().addresses.is_empty());
}
