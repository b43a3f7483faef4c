"""Every write to a job that is stored already, as a Lua script: checking the claim and writing are one atomic step and
one round trip.

KEYS are the job's hash, its log and, outside of a Redis Cluster, `RedisKeys.due`. ARGV begins with the number of the
write, the generation of the claim that writes ("" for who holds none, as a broker's events), the job's id and its
channel; what follows is each script's own. The answer is one of WRITTEN, UNCHANGED and LOST, and what a script adds to
it.

A write whose answer was lost is sent again: the hash keeps the last numbers, so that it is done once.
"""

from __future__ import annotations

from typing import Any

from contract.stored import ENVELOPE

WRITTEN = 1
UNCHANGED = 0
"""The job is unknown, has ended, or is as it was to become already."""
LOST = -1
"""The job was claimed again since."""
BEHIND = -2
"""The progress of the job is another one by now: the second part of the answer."""

SHORT_END = 16_384
"""An outcome of fewer bytes is stored even where Redis has no memory left: each problem is one."""

_CHECK = """
local job, log, number, generation = KEYS[1], KEYS[2], ARGV[1] .. ';', ARGV[2]
local created, ended, deadline, claimed, writes =
    unpack(redis.call('HMGET', job, 'created', 'ended', 'deadline', 'generation', 'writes'))
if not created then return {0} end
local repeated = string.find(';' .. (writes or ''), ';' .. number, 1, true)
if not repeated then
    if ended then return {0} end
    if generation ~= '' and tonumber(claimed or 0) > tonumber(generation) then return {-1} end
end
local function count()
    redis.call('HSET', job, 'writes', string.sub(number .. (writes or ''), 1, 400))
end
"""

_APPEND = """
local function append(most, first, keep)
    for index = first, #ARGV, 2 do
        redis.call('XADD', log, 'MAXLEN', '~', most, '*', 'event', ARGV[index], 'data', ARGV[index + 1])
    end
    redis.call('EXPIREAT', log, math.floor(deadline + keep) + 1)
    redis.call('PUBLISH', ARGV[4], '')
    count()
end
"""

APPEND = f"""{_CHECK}{_APPEND}
if not repeated then append(ARGV[5], 7, ARGV[6]) end
return {{1}}
"""
"""The log's length, seconds that the job is kept, and for each entry its event and data."""

APPEND_PROGRESS = f"""{_CHECK}{_APPEND}
if not repeated then
    local told = redis.call('HGET', job, 'told') or '0'
    if told ~= ARGV[7] then return {{-2, tonumber(told)}} end
    redis.call('HSET', job, 'told', ARGV[8])
    append(ARGV[5], 9, ARGV[6])
end
return {{1}}
"""
"""As APPEND; before the entry how far the progress is taken to be, and how far it is now."""

START = f"""{_CHECK}
if not repeated then
    if redis.call('HEXISTS', job, 'started') == 1 then return {{0}} end
    redis.call('HSET', job, 'started', ARGV[5])
    redis.call('HINCRBY', job, 'attempts', 1)
    redis.call('PUBLISH', ARGV[4], '')
    count()
end
return {{1}}
"""
"""The time."""

RESET = f"""{_CHECK}
if not repeated then
    redis.call('HDEL', job, 'started', 'told')
    if ARGV[5] ~= '0' then redis.call('HINCRBY', job, 'attempts', ARGV[5]) end
    redis.call('PUBLISH', ARGV[4], '')
    count()
end
return {{1}}
"""
"""What is added to its attempts."""

FINISH = f"""{_CHECK}
local own = redis.call('HGET', job, 'keep')
local keep = own and math.floor(own) + 1 or ARGV[5]
if not repeated then
    local read, request = pcall(cjson.decode, redis.call('HGET', job, 'order'))
    if not read then request = {{}} end
    request = request.{ENVELOPE} or request
    local left = {{prompt = '-', n = request.n, format = request.format}}
    -- Redis refuses writes in want of memory, but not those after one that frees some: short ends are always stored.
    if #ARGV[8] < tonumber(ARGV[10]) then redis.call('HDEL', job, 'order') end
    redis.call('HSET', job, 'order', cjson.encode(left), 'end', ARGV[6], 'ended', ARGV[7], 'outcome', ARGV[8])
    if ARGV[11] ~= '' then redis.call('HSET', job, 'artifact', ARGV[11]) end
    if KEYS[3] then redis.call('ZADD', KEYS[3], 'XX', ARGV[7], ARGV[3]) end
    redis.call('XADD', log, '*', 'event', ARGV[9], 'data', '')
    redis.call('EXPIRE', job, keep)
    redis.call('EXPIRE', log, keep)
    redis.call('PUBLISH', ARGV[4], '')
    redis.call('PUBLISH', 'shangcai:changed', ARGV[3])
    redis.call('PUBLISH', 'shangcai:ended', ARGV[3])
    count()
end
local model, entry = unpack(redis.call('HMGET', job, 'model', 'entry'))
local bytes = redis.call('MEMORY', 'USAGE', job, 'SAMPLES', 0) + redis.call('MEMORY', 'USAGE', log, 'SAMPLES', 0)
return {{1, bytes, model, entry, keep - 1}}
"""
"""Seconds that it is kept where its hash does not say so, its end, the time, its outcome, the name of the last event,
SHORT_END, and its artifact. Of the request stays what answers are made by, as in `ended_request`. The answer has the
bytes that the job takes, its model, its entry in the queue and the seconds that it is kept."""

CLAIM = """
local created, ended, holder, started =
    unpack(redis.call('HMGET', KEYS[1], 'created', 'ended', 'holder', 'started'))
local taken_over = 0
if created and not ended then
    redis.call('HSET', KEYS[1], 'entry', ARGV[2])
    if holder ~= ARGV[1] then
        if holder or started then taken_over = 1 end
        redis.call('HSET', KEYS[1], 'holder', ARGV[1])
        redis.call('HINCRBY', KEYS[1], 'generation', 1)
    end
end
return {tonumber(redis.call('HGET', KEYS[1], 'generation') or 0), taken_over}
"""
"""Of the hash alone: the name of the replica that has claimed the job, and the entry. The answer is the generation of
the claim, the same as before where the replica holds the job still, as when its lease ran out in an outage; and 1 where
another one has had it."""

RELEASE = """
if tonumber(redis.call('HGET', KEYS[1], 'generation') or 0) > tonumber(ARGV[1]) then return -1 end
if redis.call('HEXISTS', KEYS[1], 'holder') == 1 then redis.call('HSET', KEYS[1], 'holder', '') end
return 1
"""
"""Of the hash alone: the generation of the claim that is given up."""


class RedisScripts:
    """The scripts, each as a coroutine function of `keys` and `args`."""

    def __init__(self, redis: Any) -> None:
        self.append = redis.register_script(APPEND)
        self.append_progress = redis.register_script(APPEND_PROGRESS)
        self.start = redis.register_script(START)
        self.reset = redis.register_script(RESET)
        self.finish = redis.register_script(FINISH)
        self.claim = redis.register_script(CLAIM)
        self.release = redis.register_script(RELEASE)
