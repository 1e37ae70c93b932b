#!lua flags=allow-oom
-- commit saves one step, if holder and version are those in the state.
-- KEYS 1 state  2 mailbox  3 due  4 lease  5 journal  6 version of what is not there  7 index of what waits,
--      then indexes, records, forgotten delivery ids
-- ARGV 1 subject  2 holder, "" = an Ask  3 version  4 "1" if there is a document  5 document
--      6 remove mail up to this number  7 wake in ms, 0 = none  8 "" | "release" | "handback" | "drop"  9 "" | "set" | "clear"
--      10 most mail  11 journal lines kept  12 indexes  13 places  14 records  15 forgotten ids (numbers of them), then
--      indexes × name, places × (index, label, score), records × (ms to live: 0 for ever, -1 delete; value), journal lines
-- Returns {"OK", released 0|1, now ms, mail…} | {"MOVED"} | {"NOTOWNER"} | {"INDEXES", name…}: nothing was done, the
-- subject also stands in these indexes, send again with their keys
local holder, wake, ending = ARGV[2], tonumber(ARGV[7]), ARGV[8]
local s = redis.call('HMGET', KEYS[1], 'v', 'h', 'q', 'f', 'x')
if holder ~= '' and s[2] ~= holder then return {'NOTOWNER'} end
if (s[1] or redis.call('GET', KEYS[6]) or '0') ~= ARGV[3] then return {'MOVED'} end
local drops = ending == 'drop' and not s[4] and redis.call('EXISTS', KEYS[2]) == 0

-- x remembers the places of the subject, so that they can be replaced as a set.
local arg, index, names = 15, {}, {}
for i = 1, tonumber(ARGV[12]) do
  names[i] = ARGV[arg + i]
  index[names[i]] = KEYS[7 + i]
end
arg = arg + #names
local places = {}
for i = 1, tonumber(ARGV[13]) do
  places[i] = {names[tonumber(ARGV[arg + 1])], ARGV[arg + 2], ARGV[arg + 3]}
  arg = arg + 3
end
local packed = #places > 0 and cmsgpack.pack(places) or ''
local moves = (drops or ARGV[4] == '1') and packed ~= (s[5] or '')
local old = moves and s[5] and s[5] ~= '' and cmsgpack.unpack(s[5]) or {}
local missing = {'INDEXES'}
for _, p in ipairs(old) do
  if not index[p[1]] then missing[#missing + 1] = p[1] end
end
if #missing > 1 then return missing end

-- Nothing above has written; nothing below can fail.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if ARGV[4] == '1' then
  redis.call('HSET', KEYS[1], 'v', string.format('%.0f', ARGV[3] + 1), 's', ARGV[5])
end
if moves then
  for _, p in ipairs(old) do redis.call('ZREM', index[p[1]], p[2] .. '\0' .. ARGV[1]) end
  for _, p in ipairs(places) do redis.call('ZADD', index[p[1]], p[3], p[2] .. '\0' .. ARGV[1]) end
  if packed == '' then redis.call('HDEL', KEYS[1], 'x') else redis.call('HSET', KEYS[1], 'x', packed) end
end

local key = 7 + #names
for i = 1, tonumber(ARGV[14]) do
  local ttl = tonumber(ARGV[arg + 1])
  if ttl < 0 then
    redis.call('DEL', KEYS[key + i])
  elseif ttl == 0 then
    redis.call('SET', KEYS[key + i], ARGV[arg + 2])
  else
    redis.call('SET', KEYS[key + i], ARGV[arg + 2], 'PX', ttl)
  end
  arg = arg + 2
end
key = key + ARGV[14]
for i = 1, tonumber(ARGV[15]) do redis.call('DEL', KEYS[key + i]) end
if arg < #ARGV then
  for i = arg + 1, #ARGV do redis.call('RPUSH', KEYS[5], ARGV[i]) end
  redis.call('LTRIM', KEYS[5], -ARGV[11], -1)
end

-- A flag that was raised and not yet shown by a begin asks for a look later than the one this commit comes from: it
-- cannot be cleared, and the subject stays due.
local raised = s[4] == 'raised'
if ARGV[9] == 'set' and not raised then
  redis.call('HSET', KEYS[1], 'f', 'shown')
elseif ARGV[9] == 'clear' and not raised then
  redis.call('HDEL', KEYS[1], 'f')
end

-- Only commits remove mail, from the front, so the numbers in the mailbox have no gap and end with q.
local depth = redis.call('LLEN', KEYS[2])
local drop = math.min(ARGV[6] - (tonumber(s[3] or 0) - depth), depth)
if drop > 0 then
  redis.call('LTRIM', KEYS[2], drop, -1)
  depth = depth - drop
  if depth > 0 then
    redis.call('ZADD', KEYS[7], string.match(redis.call('LINDEX', KEYS[2], 0), '^%d+ (%d+)'), 'mail\0' .. ARGV[1])
  else
    redis.call('ZREM', KEYS[7], 'mail\0' .. ARGV[1])
  end
end

local lease, ttl = redis.call('GET', KEYS[4]), redis.call('PTTL', KEYS[4])
local reply = {'OK', 0, now}
if holder == '' then
  -- While somebody holds the lease, at its end: a holder that has begun will see that the version moved and decide
  -- again, one that has not may never begin.
  if wake > 0 then redis.call('ZADD', KEYS[3], 'LT', lease and math.max(wake, now + ttl) or wake, ARGV[1]) end
elseif ending == 'handback' or (ending ~= '' and depth == 0) then
  redis.call('HDEL', KEYS[1], 'h', 'b')
  if lease == holder then redis.call('DEL', KEYS[4]) end
  if raised or (wake == 0 and ending == 'handback') then wake = now end
  if wake > 0 and not drops then
    redis.call('ZADD', KEYS[3], wake, ARGV[1])
  else
    redis.call('ZREM', KEYS[3], ARGV[1])
  end
  if drops then
    redis.call('DEL', KEYS[1], KEYS[5])
    -- Each shard has its own, and for ever: who has read nothing at a version must never find it to be something's.
    redis.call('SET', KEYS[6], string.format('%.0f', math.max(ARGV[3] + 1, redis.call('GET', KEYS[6]) or 0)))
  end
  reply[2] = 1
else
  if lease == holder then redis.call('ZADD', KEYS[3], 'GT', now + ttl, ARGV[1]) end
  local mail = redis.call('LRANGE', KEYS[2], 0, ARGV[10] - 1)
  for i = 1, #mail do reply[3 + i] = mail[i] end
end
return reply
