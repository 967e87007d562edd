//! Operations that compare before they change: scripts, which Redis runs one at a time.

use std::sync::LazyLock;

use redis::Script;

/// Stores `ARGV[2]`, for `ARGV[3]` milliseconds, or for ever if that is empty, unless there is an entry, which begins with
/// `ARGV[1]`. Bytes that another program has stored are no entry. Returns whether it did.
pub(crate) static ADD: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GETRANGE', KEYS[1], 0, 0) == ARGV[1] then return 0 end
         if ARGV[3] == '' then redis.call('SET', KEYS[1], ARGV[2])
         else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
         return 1",
    )
});

/// Stores `ARGV[2]` in place of an entry that begins with `ARGV[1]`, for `ARGV[3]` milliseconds, or for ever if that is
/// empty. Returns whether it did.
pub(crate) static SWAP: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GETRANGE', KEYS[1], 0, string.len(ARGV[1]) - 1) ~= ARGV[1] then return 0 end
         if ARGV[3] == '' then redis.call('SET', KEYS[1], ARGV[2])
         else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
         return 1",
    )
});

/// Deletes an entry that begins with `ARGV[1]`.
pub(crate) static DELETE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GETRANGE', KEYS[1], 0, string.len(ARGV[1]) - 1) == ARGV[1] then
           redis.call('DEL', KEYS[1])
         end
         return 1",
    )
});

/// Adds `ARGV[1]` to a number, or stores `ARGV[2]` for `ARGV[3]` milliseconds if it does not exist. With `ARGV[4]` of `1`, a
/// number below 2⁶³ does not become negative. Returns its digits: a script would round a number.
pub(crate) static COUNT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local before = redis.call('GET', KEYS[1])
         if not before then
           if ARGV[3] == '' then redis.call('SET', KEYS[1], ARGV[2])
           else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
           return ARGV[2]
         end
         redis.call('INCRBY', KEYS[1], ARGV[1])
         local after = redis.call('GET', KEYS[1])
         if ARGV[4] == '1' and string.sub(before, 1, 1) ~= '-' and string.sub(after, 1, 1) == '-' then
           redis.call('SET', KEYS[1], '0', 'KEEPTTL')
           return '0'
         end
         return after",
    )
});
