//! Which server a key lives on: libmemcached's ketama ring, as pylibmc uses it with
//! `ketama: True`. Pure.

/// Points that each server has on the ring (libmemcached's `MEMCACHED_POINTS_PER_SERVER`).
const POINTS_PER_SERVER: usize = 100;

/// The ring of a list of servers.
#[derive(Clone, Debug)]
pub(crate) struct Ring {
    /// Hash and server, ordered by hash.
    points: Vec<(u32, usize)>,
    servers: usize,
}

impl Ring {
    /// `names` as libmemcached spells servers: `host`, or `host:port` if the port is not 11211.
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

    /// The first usable server at or after the key's place. `None` if none is usable.
    pub(crate) fn server_of(&self, key: &[u8], usable: impl Fn(usize) -> bool) -> Option<usize> {
        if self.servers == 1 {
            return usable(0).then_some(0);
        }
        let place = self.place_of(key);
        let from_there = self.points[place..].iter().chain(&self.points[..place]);
        from_there.map(|(_, server)| *server).find(|server| usable(*server))
    }

    /// The server that `key` belongs to while all are well.
    pub(crate) fn owner_of(&self, key: &[u8]) -> usize {
        if self.servers == 1 { 0 } else { self.points[self.place_of(key)].1 }
    }

    /// The first point at or after the key's hash; after the last comes the first.
    fn place_of(&self, key: &[u8]) -> usize {
        let hash = one_at_a_time(key);
        let place = self.points.partition_point(|(point, _)| *point < hash);
        if place == self.points.len() { 0 } else { place }
    }
}

/// Bob Jenkins' one-at-a-time hash, over bytes that are sign-extended as C's `char` is on the
/// platforms of libhashkit.
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
