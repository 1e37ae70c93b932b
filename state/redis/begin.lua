#!lua flags=allow-oom
-- begin enters the holder of the lease into the state and answers what a turn starts from.
-- KEYS 1 state  2 mailbox  3 due  4 lease  5 version of what is not there
-- ARGV 1 subject  2 holder  3 lease in ms  4 most mail  5 nonce of this call
-- Returns {"NOTOWNER"} | {"OK", version, document or nil, holder found, flagged 0|1, due ms or "", now ms, mail…}
if redis.call('GET', KEYS[4]) ~= ARGV[2] then return {'NOTOWNER'} end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local s = redis.call('HMGET', KEYS[1], 'v', 's', 'h', 'f', 'b')
local found = s[3] or ''
if found ~= ARGV[2] then
  redis.call('HSET', KEYS[1], 'h', ARGV[2])
  -- The client sends a call again whose answer got lost; that, too, must tell of the crash. b remembers it for the
  -- call that found it.
  if found ~= '' then redis.call('HSET', KEYS[1], 'b', ARGV[5] .. found) end
  redis.call('ZADD', KEYS[3], now + ARGV[3], ARGV[1])
elseif s[5] and string.sub(s[5], 1, #ARGV[5]) == ARGV[5] then
  found = string.sub(s[5], #ARGV[5] + 1)
else
  found = ''
end
if s[4] == 'raised' then redis.call('HSET', KEYS[1], 'f', 'shown') end
local reply = {'OK', s[1] or redis.call('GET', KEYS[5]) or '0', s[2], found, s[4] and 1 or 0, redis.call('ZSCORE', KEYS[3], ARGV[1]) or '', now}
local mail = redis.call('LRANGE', KEYS[2], 0, ARGV[4] - 1)
for i = 1, #mail do reply[7 + i] = mail[i] end
return reply
