#!lua
-- accept stores one delivery. It is refused as a whole above maxmemory: no allow-oom, but for our own mail (acceptOwn).
-- KEYS 1 delivery id  2 mailbox  3 due  4 lease  5 state  6 raw body  7 index of what waits
-- ARGV 1 subject  2 mail without its "<seq> <ms> "  3 "1" if it is a hint  4 raw body, "" = none
--      5 depth for hints  6 depth for mail  7 life of the id in ms  8 life of the raw body in ms
-- Returns {"NEW", seq} | {"FLAGGED"} | {"DUPLICATE"} | {"FULL"}
if not redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[7]) then return {'DUPLICATE'} end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local depth = redis.call('LLEN', KEYS[2])
local reply
if ARGV[3] == '1' and depth >= tonumber(ARGV[5]) then
  redis.call('HSET', KEYS[5], 'f', 'raised')
  reply = {'FLAGGED'}
elseif depth >= tonumber(ARGV[6]) then
  redis.call('DEL', KEYS[1])
  return {'FULL'}
else
  local seq = redis.call('HINCRBY', KEYS[5], 'q', 1)
  redis.call('RPUSH', KEYS[2], string.format('%.0f %.0f ', seq, now) .. ARGV[2])
  if depth == 0 then redis.call('ZADD', KEYS[7], now, 'mail\0' .. ARGV[1]) end
  reply = {'NEW', seq}
end
if ARGV[4] ~= '' then redis.call('SET', KEYS[6], ARGV[4], 'PX', ARGV[8]) end
-- Work means due, at the latest when the lease ends: whoever holds it may never begin. Never later than before.
redis.call('ZADD', KEYS[3], 'LT', now + math.max(redis.call('PTTL', KEYS[4]), 0), ARGV[1])
return reply
