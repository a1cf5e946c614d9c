-- ARGV: microseconds. Closes a listing that has been silent for that long. Returns 1 when it did.
if redis.call('HGET', base, 'state') ~= 'listing' then return 0 end
local last = tonumber(redis.call('HGET', base, 'listing_at') or '0')
if now - last < tonumber(ARGV[1]) then return 0 end
redis.call('HSET', base, 'state', 'listed', 'error', 'listing incomplete: the producer fell silent')
moved()
return 1
