"""What is done with a model's queue in Redis, as Lua scripts: each is one atomic step and one round trip.

KEYS are `RedisKeys.fair`. It is the fair order of `wire.concurrency.fair_queue`, which says how it works: what is
`_due` there is `turns` here, and `_waiting` is `waiting`, whose members are a caller's name, a zero byte and an entry's
id, padded so that Redis' order of them is the one in which they came.
"""

from __future__ import annotations

from typing import Any

_FAIR = """
local queue, waiting, turns, rounds = unpack(KEYS)

local function first_of(caller) return '[' .. caller .. '\\0' end
local function last_of(caller) return '(' .. caller .. '\\1' end
local function count(caller) return redis.call('ZLEXCOUNT', waiting, first_of(caller), last_of(caller)) end

local function member(caller, entry)
    local time, number = string.match(entry, '(%d+)-(%d+)')
    return caller .. '\\0' .. string.rep('0', 20 - #time) .. time .. '-' .. string.rep('0', 20 - #number) .. number
end
local function entry_of(member)
    local time, number = string.match(member, '0*(%d+)-0*(%d+)$')
    return time .. '-' .. number
end

-- Entries of replicas that know no callers have neither.
local function read(fields)
    local found = {caller = 'default', cost = '1'}
    for index = 1, #fields, 2 do found[fields[index]] = fields[index + 1] end
    return found
end

local function add_cost(caller, cost)
    if count(caller) == 0 then
        redis.call('HDEL', rounds, 'cost:' .. caller)
    else
        redis.call('HINCRBYFLOAT', rounds, 'cost:' .. caller, cost)
    end
end

-- What was put into the stream, by replicas of any version, is put in its place in the fair order. The group has it
-- then, as a claim whose lease is over: so replicas that know of no order may claim it at any time, too.
local function take_in(lease)
    for _ = 1, 20 do
        local read_group = {'XREADGROUP', 'GROUP', 'web', 'waiting', 'COUNT', 100, 'STREAMS', queue, '>'}
        local found = redis.pcall(unpack(read_group))
        if found and found.err then -- there is no group yet, or Redis has lost it with the stream
            redis.call('XGROUP', 'CREATE', queue, 'web', '0', 'MKSTREAM')
            found = redis.call(unpack(read_group))
        end
        local entries = found and found[1][2] or {}
        for _, each in ipairs(entries) do
            local entry, fields = each[1], read(each[2])
            local caller = fields.caller
            if count(caller) == 0 then
                local round = tonumber(redis.call('HGET', rounds, 'round') or 0)
                local due = tonumber(redis.call('ZSCORE', turns, caller) or 0)
                redis.call('ZADD', turns, math.max(round, due), caller)
            end
            redis.call('ZADD', waiting, 0, member(caller, entry))
            add_cost(caller, fields.cost)
            redis.call('XCLAIM', queue, 'web', 'waiting', 0, entry, 'IDLE', lease, 'JUSTID')
        end
        if #entries < 100 then return end
    end
end
"""

CLAIM = f"""{_FAIR}
local lease = ARGV[1]
local passed_over = {{}}
for index = 2, #ARGV do passed_over[ARGV[index]] = true end
take_in(lease)
local expired = redis.call('XPENDING', queue, 'web', 'IDLE', lease, '-', '+', 1, 'replica')
if #ARGV == 1 and expired[1] then
    local entry = expired[1][1]
    local found = redis.call('XRANGE', queue, entry, entry)
    redis.call('XCLAIM', queue, 'web', 'replica', 0, entry, 'JUSTID')
    if found[1] then return {{entry, read(found[1][2]).job, read(found[1][2]).caller}} end
    redis.call('XACK', queue, 'web', entry)
end
local passed = 0
while true do
    local turn = redis.call('ZRANGE', turns, passed, passed, 'WITHSCORES')
    local caller, due = turn[1], turn[2]
    if passed_over[caller or ''] then
        passed = passed + 1
    elseif not caller then
        if passed == 0 then redis.call('DEL', rounds) end
        local last = redis.call('XREVRANGE', queue, '+', '-', 'COUNT', 1)
        return {{last[1] and last[1][1] or '0-0'}}
    elseif count(caller) == 0 then
        redis.call('ZREM', turns, caller)
    else
        local first = redis.call('ZRANGEBYLEX', waiting, first_of(caller), last_of(caller), 'LIMIT', 0, 1)[1]
        local entry = entry_of(first)
        local found = redis.call('XRANGE', queue, entry, entry)
        local held = redis.call('XPENDING', queue, 'web', entry, entry, 1, 'waiting')
        redis.call('ZREM', waiting, first)
        if found[1] and held[1] then
            local fields = read(found[1][2])
            add_cost(caller, '-' .. fields.cost)
            redis.call('HSET', rounds, 'round', due)
            redis.call('ZINCRBY', turns, fields.cost, caller)
            redis.call('XCLAIM', queue, 'web', 'replica', 0, entry, 'JUSTID')
            return {{entry, fields.job, caller}}
        end
        -- A replica that knows of no order has claimed it, or ended it.
        add_cost(caller, found[1] and '-' .. read(found[1][2]).cost or '0')
    end
end
"""
"""The lease in milliseconds, and callers that are passed over. The answer is the next entry, its job and its caller;
or, where nothing waits, the id of the last entry alone: more has come once there is a later one."""

REMOVE = f"""{_FAIR}
local entry = ARGV[1]
local found = redis.call('XRANGE', queue, entry, entry)
if found[1] then
    local fields = read(found[1][2])
    if redis.call('ZREM', waiting, member(fields.caller, entry)) == 1 then
        add_cost(fields.caller, '-' .. fields.cost)
    end
end
redis.call('XACK', queue, 'web', entry)
redis.call('XDEL', queue, entry)
"""
"""An entry, which may be gone already."""

PLACE = f"""{_FAIR}
local entry, caller = ARGV[2], ARGV[3]
take_in(ARGV[1])
local claimed = 0
for _, consumer in ipairs(redis.call('XPENDING', queue, 'web')[4] or {{}}) do
    if consumer[1] == 'replica' then claimed = tonumber(consumer[2]) end
end
local mine = member(caller, entry)
if not redis.call('ZSCORE', waiting, mine) then
    local held = redis.call('XPENDING', queue, 'web', entry, entry, 1, 'replica')
    if not held[1] then return {{}} end
    return {{#redis.call('XPENDING', queue, 'web', '-', '(' .. entry, claimed, 'replica'), claimed, 1}}
end
local function mean_cost(of)
    return math.max(1e-6, tonumber(redis.call('HGET', rounds, 'cost:' .. of) or 0) / count(of))
end
local ahead = redis.call('ZLEXCOUNT', waiting, first_of(caller), '(' .. mine)
local due = tonumber(redis.call('ZSCORE', turns, caller)) + ahead * mean_cost(caller)
local all = redis.call('ZRANGE', turns, 0, -1, 'WITHSCORES')
for index = 1, #all, 2 do
    local other, its_due = all[index], tonumber(all[index + 1])
    local most = other ~= caller and count(other) or 0
    if most > 0 and its_due <= due then
        local before = (due - its_due) / mean_cost(other)
        -- Of two in the same round the one of the first name is first.
        before = other < caller and math.floor(before) + 1 or math.ceil(before)
        ahead = ahead + math.min(most, before)
    end
end
return {{claimed + ahead, claimed}}
"""
"""The lease in milliseconds, an entry and its caller. The answer is how many are before it, by the mean cost of what
each caller has waiting, how many are claimed, and 1 where it is one of these; empty where it is not in the queue."""


class RedisQueueScripts:
    """The scripts that are called for themselves, each as a coroutine function of `keys` and `args`."""

    def __init__(self, redis: Any) -> None:
        self.claim = redis.register_script(CLAIM)
        self.place = redis.register_script(PLACE)
