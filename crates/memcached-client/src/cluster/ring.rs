//! Maps keys to servers by libmemcached's ketama ring, as pylibmc does with `ketama: True`. Does no
//! I/O. A second ring, `ketama_weighted`, has other points and another hash.

use md5::{Digest, Md5};

/// The number of points per server on the ring (libmemcached's `MEMCACHED_POINTS_PER_SERVER`).
const POINTS_PER_SERVER: usize = 100;

/// The number of points per server on a weighted ring of servers of equal weight
/// (`MEMCACHED_POINTS_PER_SERVER_KETAMA`).
const POINTS_PER_WEIGHTED_SERVER: f32 = 160.0;
/// The number of points that one MD5 gives.
const POINTS_PER_DIGEST: usize = 4;

/// The ring of a list of servers.
#[derive(Clone, Debug)]
pub(crate) struct Ring {
    hash: fn(&[u8]) -> u32,
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
        Self { hash: one_at_a_time, points, servers: names.len() }
    }

    /// Builds the ring of libmemcached's `ketama_weighted`, on which servers have points in proportion to
    /// their weights. `names` and `weights` have the same length.
    pub(crate) fn weighted(names: &[String], weights: &[u32]) -> Self {
        let total: f32 = weights.iter().map(|weight| as_float(*weight)).sum();
        let mut points = Vec::new();
        for (server, (name, weight)) in names.iter().zip(weights).enumerate() {
            // In the arithmetic of libmemcached, because rounding decides on the number of points.
            let share = as_float(*weight) / total;
            let servers = as_float(u32::try_from(names.len()).unwrap_or(u32::MAX));
            let digests = share * POINTS_PER_WEIGHTED_SERVER / 4.0 * servers + 0.000_000_000_1;
            for digest in 0..whole(digests) {
                let digest = Md5::digest(format!("{name}-{digest}"));
                points.extend((0..POINTS_PER_DIGEST).map(|part| (part_of(&digest, part), server)));
            }
        }
        points.sort_unstable();
        Self { hash: |key| part_of(&Md5::digest(key), 0), points, servers: names.len() }
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
        let hash = (self.hash)(key);
        let place = self.points.partition_point(|(point, _)| *point < hash);
        if place == self.points.len() { 0 } else { place }
    }
}

/// Returns four bytes of a digest as a number.
fn part_of(digest: &[u8], part: usize) -> u32 {
    let bytes = digest[POINTS_PER_DIGEST * part..].first_chunk().copied();
    u32::from_le_bytes(bytes.unwrap_or_default())
}

#[expect(clippy::cast_precision_loss, reason = "libmemcached loses it too")]
fn as_float(number: u32) -> f32 {
    number as f32
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is small and positive"
)]
fn whole(number: f32) -> u32 {
    number.floor() as u32
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
