-- ARGV: microseconds. Goes on with a listing that has been silent for that long: whoever began it is dead.
-- Returns the number of its next page and how many items it has added; nothing when it is not silent, or has ended.
if redis.call('HGET', base, 'state') ~= 'listing' then return {} end
if now - tonumber(redis.call('HGET', base, 'listing_at')) < tonumber(ARGV[1]) then return {} end
redis.call('HSET', base, 'listing_at', num(now))
return { tonumber(redis.call('HGET', base, 'page')), tonumber(redis.call('HGET', base, 'listed')) }
