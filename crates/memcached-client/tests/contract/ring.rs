//! Keys map to the servers that pylibmc would choose.

use memcached_client::{Client, Config, Failover, Protocol, ServerAddress};

/// Lines of a key, the index of the server on which pylibmc 1.6.3 stored it, and the name of the
/// server list.
const VECTORS: &str = include_str!("../ketama-vectors.tsv");
/// The same with `ketama_weighted`, and with weights in the lists.
const WEIGHTED: &str = include_str!("../ketama-weighted-vectors.tsv");

#[test]
fn keys_map_to_the_servers_of_pylibmc() {
    assert_eq!(check(VECTORS), 5997);
}

#[test]
fn with_weights_keys_map_to_the_servers_of_pylibmc() {
    assert_eq!(check(WEIGHTED), 1215);
}

/// Checks vectors, and returns their number.
fn check(vectors: &str) -> usize {
    let mut lists = std::collections::HashMap::new();
    let mut checked = 0;
    for line in vectors.lines() {
        if let Some(list) = line.strip_prefix("# list ") {
            let (name, servers) = list.split_once('\t').unwrap();
            let config = Config::parse(servers).unwrap();
            lists.insert(name, (Client::new(config.clone()), config.servers));
        } else if !line.starts_with("# ") {
            let mut fields = line.rsplitn(3, '\t');
            let (list, index) = (fields.next().unwrap(), fields.next().unwrap());
            let key = fields.next().unwrap();
            let (client, servers) = &lists[list];
            let expected = &servers[index.parse::<usize>().unwrap()];
            assert_eq!(client.server_of(key).as_ref(), Ok(&expected), "{key} in {list}");
            checked += 1;
        }
    }
    checked
}

#[test]
fn are_on_one_server_requires_that_keys_cannot_move() {
    let client = |list: &str, failover| {
        let servers = ServerAddress::parse_list(list).unwrap();
        let mut config = Config::new(servers);
        config.failover = failover;
        Client::new(config)
    };
    let keys: Vec<_> = (0..100).map(|n| format!("key{n}")).collect();
    let two = client("a:1,b:1", Failover::Miss);
    let of_a: Vec<_> = keys
        .iter()
        .filter(|key| two.server_of(key).unwrap() == two.server_of("x").unwrap())
        .collect();
    assert!(of_a.len() > 1 && of_a.len() < keys.len());
    assert_eq!(two.are_on_one_server(&of_a), Ok(true));
    assert_eq!(two.are_on_one_server(&keys), Ok(false));
    assert_eq!(client("a:1,b:1", Failover::Eject).are_on_one_server(&of_a), Ok(false));
    assert_eq!(client("a:1", Failover::Eject).are_on_one_server(&keys), Ok(true));
    assert!(two.are_on_one_server(&["not a key"]).is_err());
    let mut behind_a_proxy = Config::new(ServerAddress::parse_list("a:1").unwrap());
    behind_a_proxy.protocol = Protocol::Text;
    assert_eq!(Client::new(behind_a_proxy).are_on_one_server(&keys), Ok(false));
}
