#!lua flags=allow-oom
-- defer moves a due subject to the end of the lease that somebody holds on it.
-- KEYS 1 due  2 lease
-- ARGV 1 subject
-- Returns {"OK"}
local ttl = redis.call('PTTL', KEYS[2])
if ttl > 0 then
  local t = redis.call('TIME')
  redis.call('ZADD', KEYS[1], 'XX', 'GT', t[1] * 1000 + math.floor(t[2] / 1000) + ttl, ARGV[1])
end
return {'OK'}
