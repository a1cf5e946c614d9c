-- Adds one page of a listing. ARGV: expected page number, then triples of action, id|source hash, payload:
--   todo: payload is the item's record; skipped/failed/conflict/no_image: payload is the row. Of a conflict and of what
--   is no image the output belongs to another source, or may: they claim the output for this source alone.
-- Returns the number of items added, or -1 when another listing has moved the page number, or -2 when the run ended.
local page = tonumber(ARGV[1])
if redis.call('HGET', base, 'state') ~= 'listing' then return -2 end
if tonumber(redis.call('HGET', base, 'page') or '0') ~= page then return -1 end
local added = 0
for i = 2, #ARGV, 3 do
  local action, name, payload = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local id, source = string.sub(name, 1, 12), string.sub(name, 13)
  local fresh
  if action == 'conflict' or action == 'no_image' then
    fresh = redis.call('HSETNX', base .. ':claims', id .. source, '1') == 1
  else
    fresh = redis.call('HSETNX', base .. ':claims', id, source) == 1
  end
  if fresh then
    added = added + 1
    if action == 'todo' then
      redis.call('HSET', items, id, payload)
      redis.call('ZADD', todo, num(now), id)
    else
      redis.call('HINCRBY', base, (action == 'skipped' or action == 'no_image') and 'skipped' or 'failed', 1)
      redis.call('XADD', rows, '*', 'row', payload)
    end
  end
end
redis.call('HINCRBY', base, 'listed', added)
redis.call('HSET', base, 'page', num(page + 1), 'listing_at', num(now))
moved()
return added
