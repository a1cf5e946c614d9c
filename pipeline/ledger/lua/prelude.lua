#!lua flags=allow-oom
-- KEYS[1] is the run's base key "mm:{run}"; every other key of the run begins with it, in the same hash slot.
-- An item is in exactly one of todo, todo:encode (its alpha is there), waiting:<queue>, held; `items` has it as long as
-- it is not finished.
local base = KEYS[1]
local items, todo, held = base .. ':items', base .. ':todo', base .. ':held'
local todo_encode = base .. ':todo:encode'
local queues, alpha, fedof = base .. ':queues', base .. ':alpha', base .. ':fed'
local tries, deaths, rows = base .. ':tries', base .. ':deaths', base .. ':rows'
local suspects = base .. ':suspects'
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])

local function waiting(queue) return base .. ':waiting:' .. queue end
local function num(n) return string.format('%.0f', n) end
local function moved() redis.call('HSET', base, 'moved', num(now)) end
local function stands(id, fed) return redis.call('HGET', fedof, id) == fed end

local function leave_held(id)
  redis.call('ZREM', held, id)
  redis.call('HDEL', fedof, id)
end

local function to_todo(id, due)
  leave_held(id)
  redis.call('ZADD', redis.call('HEXISTS', alpha, id) == 1 and todo_encode or todo, num(due), id)
end

-- How often an item was tried, and failed in a way that counts: by itself, its process, or alone in an engine.
local function tried(id)
  local count = 0
  for _, kind in ipairs({ tries, deaths, suspects }) do count = count + tonumber(redis.call('HGET', kind, id) or '0') end
  return count
end

-- Counts an item as finished, once, wherever it is. Returns 1 for whoever was first. `attempts` of the row; the row of
-- a failure also gets what the item's record knows of its source.
local function finish(id, outcome, row, attempts)
  local record = redis.call('HGET', items, id)
  if not record then return 0 end
  redis.call('HDEL', items, id)
  local more = ',"attempts":' .. num(attempts)
  if outcome == 'failed' then
    local known = cjson.decode(record)
    more = more .. ',"bytes":' .. num(known[3]) .. ',"etag":' .. cjson.encode(known[2])
  end
  row = string.sub(row, 1, -2) .. more .. '}'
  redis.call('ZREM', todo, id)
  redis.call('ZREM', todo_encode, id)
  for _, queue in ipairs(redis.call('SMEMBERS', queues)) do redis.call('ZREM', waiting(queue), id) end
  leave_held(id)
  redis.call('HDEL', alpha, id)
  redis.call('HDEL', tries, id)
  redis.call('HDEL', deaths, id)
  redis.call('HDEL', suspects, id)
  redis.call('HINCRBY', base, outcome, 1)
  redis.call('XADD', rows, '*', 'row', row)
  moved()
  return 1
end
