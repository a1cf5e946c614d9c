-- ARGV: how many items the listing added. The ledger refuses another number than its own. Returns its own.
local listed = redis.call('HGET', base, 'listed')
if redis.call('HGET', base, 'state') ~= 'listing' then return tonumber(listed) end
if listed == ARGV[1] then
  redis.call('HSET', base, 'state', 'listed')
else
  redis.call('HSET', base, 'state', 'listed', 'error', 'listing incomplete: ' .. ARGV[1] .. ' keys were listed, ' .. listed .. ' are known')
end
moved()
return tonumber(listed)
