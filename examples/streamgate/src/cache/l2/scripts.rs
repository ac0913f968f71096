//! What Redis does in one step: read with epochs, store if unchanged, bump and announce.
//!
//! Guide 2.3. Breaking tests: `a_load_that_a_write_overtook_is_not_stored`, `a_full_redis_still_answers_reads`.
//!
//! An epoch is a number that no other epoch was: who finds none makes one, so one that Redis forgot only
//! refuses a store and never brings back a value from before.

use std::sync::LazyLock;

use redis::Script;

/// Epochs outlive every value that was stored under them: a value lives 30 minutes, a load far less than
/// the ten that are left.
pub(super) const EPOCH_SECONDS: u64 = 40 * 60;

/// Value, what is left of its life in milliseconds, and its tags' epochs.
///
/// KEYS: value, epochs. ARGV: a new epoch for each that is missing, seconds of an epoch. An epoch that
/// cannot be made, in a full Redis, is nothing, and then nothing is stored.
pub(super) static READ: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local epochs = {}
for i = 2, #KEYS do
    local epoch = redis.call('GET', KEYS[i])
    if not epoch then
        local made = redis.pcall('SET', KEYS[i], ARGV[i - 1], 'EX', ARGV[#ARGV])
        if type(made) == 'table' and made.err and string.find(made.err, 'READONLY', 1, true) then
            return made
        end
        epoch = type(made) == 'table' and made.ok and ARGV[i - 1] or ''
    end
    epochs[#epochs + 1] = epoch
end
return {redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1]), epochs}
",
    )
});

/// Stores a value if no tag was bumped since its load began, and gives the lock back; says whether it did.
///
/// KEYS: value, lock, epochs. ARGV: value, milliseconds to live, owner of the lock, the epochs, seconds of
/// an epoch.
pub(super) static STORE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local same = true
for i = 3, #KEYS do
    same = same and redis.call('GET', KEYS[i]) == ARGV[i + 1]
end
if redis.call('GET', KEYS[2]) == ARGV[3] then
    redis.call('DEL', KEYS[2])
end
if not same then
    return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
for i = 3, #KEYS do
    redis.call('EXPIRE', KEYS[i], ARGV[#ARGV])
end
return 1
",
    )
});

/// Voids what carries the tags, then tells all instances, in that order: one that is told and loads anew
/// must not find the old value.
///
/// KEYS: stream, its counter, epochs. ARGV: who writes, tags in words, microseconds of the commit, seconds
/// of an epoch, messages kept, new epochs.
pub(super) static BUMP: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
for i = 3, #KEYS do
    redis.call('SET', KEYS[i], ARGV[i + 3], 'EX', ARGV[4])
end
local n = redis.call('INCR', KEYS[2])
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[5], '*', 'n', n, 'from', ARGV[1], 'tags', ARGV[2], 'at', ARGV[3])
return n
",
    )
});
