#!lua flags=no-writes,allow-oom
-- confirm says whether holder and version still stand, and whether mail beyond a number waits.
-- KEYS 1 state  2 mailbox  3 version of what is not there
-- ARGV 1 holder  2 version  3 sequence number
-- Returns {"NOTOWNER"} | {"MOVED"} | {"OK", unread 0|1}
local s = redis.call('HMGET', KEYS[1], 'v', 'h', 'q')
if s[2] ~= ARGV[1] then return {'NOTOWNER'} end
if (s[1] or redis.call('GET', KEYS[3]) or '0') ~= ARGV[2] then return {'MOVED'} end
local unread = tonumber(s[3] or 0) > tonumber(ARGV[3]) and redis.call('LLEN', KEYS[2]) > 0
return {'OK', unread and 1 or 0}
