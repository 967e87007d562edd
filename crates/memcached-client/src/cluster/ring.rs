//! Maps keys to servers by libmemcached's ketama ring, as pylibmc does with `ketama: True`. Does no
//! I/O.

/// The number of points per server on the ring (libmemcached's `MEMCACHED_POINTS_PER_SERVER`).
const POINTS_PER_SERVER: usize = 100;

/// The ring of a list of servers.
#[derive(Clone, Debug)]
pub(crate) struct Ring {
    /// Pairs of hash and server, ordered by hash.
    points: Vec<(u32, usize)>,
    servers: usize,
}

impl Ring {
    /// Builds the ring. `names` are spelt as in libmemcached: `host`, or `host:port` if the port is not
    /// 11211.
    pub(crate) fn new(names: &[String]) -> Self {
        let mut points: Vec<_> = names
            .iter()
            .enumerate()
            .flat_map(|(server, name)| {
                (0..POINTS_PER_SERVER)
                    .map(move |point| (one_at_a_time(format!("{name}-{point}").as_bytes()), server))
            })
            .collect();
        points.sort_unstable();
        Self { points, servers: names.len() }
    }

    /// Returns the first usable server at or after the key's place, or `None` if all are unusable.
    pub(crate) fn server_of(&self, key: &[u8], usable: impl Fn(usize) -> bool) -> Option<usize> {
        if self.servers == 1 {
            return usable(0).then_some(0);
        }
        let place = self.place_of(key);
        let from_there = self.points[place..].iter().chain(&self.points[..place]);
        from_there.map(|(_, server)| *server).find(|server| usable(*server))
    }

    /// Returns the server of `key` while all servers are up.
    pub(crate) fn owner_of(&self, key: &[u8]) -> usize {
        if self.servers == 1 { 0 } else { self.points[self.place_of(key)].1 }
    }

    /// Returns the index of the first point at or after the key's hash; the ring wraps around.
    fn place_of(&self, key: &[u8]) -> usize {
        let hash = one_at_a_time(key);
        let place = self.points.partition_point(|(point, _)| *point < hash);
        if place == self.points.len() { 0 } else { place }
    }
}

/// Hashes with Bob Jenkins' one-at-a-time function. Bytes are sign-extended, as in libhashkit where
/// C's `char` is signed.
fn one_at_a_time(key: &[u8]) -> u32 {
    let mut hash = key.iter().fold(0_u32, |hash, byte| {
        let extended = i32::from(byte.cast_signed()).cast_unsigned();
        let hash = hash.wrapping_add(extended);
        let hash = hash.wrapping_add(hash << 10);
        hash ^ (hash >> 6)
    });
    hash = hash.wrapping_add(hash << 3);
    hash ^= hash >> 11;
    hash.wrapping_add(hash << 15)
}
