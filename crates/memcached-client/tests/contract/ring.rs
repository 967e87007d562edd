//! Keys live where pylibmc puts them.

use memcached_client::{Client, Config, ServerAddress};

/// Measured with pylibmc 1.6.3: key, index of the server that held it, name of the server list.
const VECTORS: &str = include_str!("../ketama-vectors.tsv");

#[test]
fn every_key_is_on_the_server_where_pylibmc_put_it() {
    let mut lists = std::collections::HashMap::new();
    let mut checked = 0;
    for line in VECTORS.lines() {
        if let Some(list) = line.strip_prefix("# list ") {
            let (name, servers) = list.split_once('\t').unwrap();
            let servers = ServerAddress::parse_list(servers).unwrap();
            lists.insert(name, (Client::new(Config::new(servers.clone())), servers));
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
    assert_eq!(checked, 5997);
}
