#!lua flags=no-writes
-- load reads a subject without taking part.
-- KEYS 1 state  2 mailbox  3 due  4 version of what is not there
-- ARGV 1 subject  2 most mail
-- Returns {"OK", version, document or nil, holder, flagged 0|1, due ms or "", now ms, mail…}
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local s = redis.call('HMGET', KEYS[1], 'v', 's', 'h', 'f')
local reply = {'OK', s[1] or redis.call('GET', KEYS[4]) or '0', s[2], s[3] or '', s[4] and 1 or 0, redis.call('ZSCORE', KEYS[3], ARGV[1]) or '', now}
local mail = redis.call('LRANGE', KEYS[2], 0, ARGV[2] - 1)
for i = 1, #mail do reply[7 + i] = mail[i] end
return reply
