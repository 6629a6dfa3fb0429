-- The line of all processes, in Redis: the policy of ledger.py, step for step. Change both.
--
-- KEYS  tickets  hash, id -> "since engine,engine caller": who waits
--       leases   hash, id -> "started engine caller": who holds a slot
--       alive    zset, id by the time at which the ticket or lease expires
--       places   hash, id -> how many are ahead
--       seen     zset, caller by the time of its last sign of life
--       book     hash, "since" of the newest ticket, "hold" (moving average), "capacity:<engine>"
-- ARGV  operation, lease, ticket and seen terms, id, caller, then what the operation needs
-- Times are whole microseconds of this server's clock. Numbers above 1e14 must not become text by
-- themselves: Lua would round them. As arguments of redis.call they are exact.

local TICKETS, LEASES, ALIVE, PLACES, SEEN, BOOK = unpack(KEYS)
local operation, id, caller = ARGV[1], ARGV[5], ARGV[6]
local lease_us, ticket_us, seen_us = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local SMOOTHING = 0.2
local KEPT_MS = 24 * 3600 * 1000 -- callers' ids are not kept for ever where nobody asks any more

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function whole(number)
  return string.format('%.0f', number)
end

local function pairs_of(key)
  local flat, index = redis.call('HGETALL', key), -1
  return function()
    index = index + 2
    return flat[index], flat[index + 1]
  end
end

local function see(who)
  redis.call('ZADD', SEEN, now, who)
end

local function forget(...)
  redis.call('ZREM', ALIVE, ...)
  redis.call('HDEL', TICKETS, ...)
  redis.call('HDEL', LEASES, ...)
  redis.call('HDEL', PLACES, ...)
end

-- A Redis that is also a cache may throw out one key of ours and keep the others: what has no end
-- gets one, or a dead holder's slot would never come back.
local function give_ends()
  for key, term in pairs({[TICKETS] = ticket_us, [LEASES] = lease_us}) do
    for _, each in ipairs(redis.call('HKEYS', key)) do
      redis.call('ZADD', ALIVE, 'NX', now + term, each)
    end
  end
end

-- What ends later than it can, or was seen later than now, was noted before this server's clock was
-- set back. It counts from now, or a dead holder's slot would be away for as long.
local function follow_clock()
  local latest = now + math.max(lease_us, ticket_us)
  for key, limit in pairs({[ALIVE] = latest, [SEEN] = now}) do
    for _, each in ipairs(redis.call('ZRANGEBYSCORE', key, limit + 1, '+inf')) do
      redis.call('ZADD', key, limit, each)
    end
  end
end

-- Drop what expired; whether anything did.
local function purge()
  follow_clock()
  if redis.call('ZCARD', ALIVE) < redis.call('HLEN', TICKETS) + redis.call('HLEN', LEASES) then
    give_ends()
  end
  local dead = redis.call('ZRANGEBYSCORE', ALIVE, '-inf', now)
  if #dead > 0 then
    forget(unpack(dead))
  end
  local gone = redis.call('ZREMRANGEBYSCORE', SEEN, '-inf', now - seen_us)
  return #dead > 0 or gone > 0
end

local function is_earlier(one, other)
  if one.since ~= other.since then
    return one.since < other.since
  end
  return one.id < other.id
end

local function add(state, who, engine)
  local both = engine .. ' ' .. who
  state.holders = state.holders + (state.by_caller[who] and 0 or 1)
  state.by_caller[who] = (state.by_caller[who] or 0) + 1
  state.by_engine[engine] = (state.by_engine[engine] or 0) + 1
  state.by_both[both] = (state.by_both[both] or 0) + 1
end

-- The line in order of age, and what is held, counted three ways.
local function read(newcomer)
  local state = {line = {newcomer}, by_caller = {}, by_engine = {}, by_both = {}, capacity = {}}
  state.holders, state.seen = 0, redis.call('ZCARD', SEEN)
  for each, text in pairs_of(TICKETS) do
    if not newcomer or each ~= newcomer.id then
      local since, engines, who = string.match(text, '^(%d+) (%S+) (.*)$')
      local ticket = {id = each, since = tonumber(since), caller = who, engines = {}}
      for engine in string.gmatch(engines, '[^,]+') do
        table.insert(ticket.engines, engine)
      end
      table.insert(state.line, ticket)
    end
  end
  table.sort(state.line, is_earlier)
  for _, text in pairs_of(LEASES) do
    local engine, who = string.match(text, '^%d+ (%S+) (.*)$')
    add(state, who, engine)
  end
  for field, value in pairs_of(BOOK) do
    local engine = string.match(field, '^capacity:(.*)$')
    if engine then
      state.capacity[engine] = tonumber(value)
    end
  end
  return state
end

-- The least busy of the ticket's engines that has room, by busy/capacity; or none.
local function engine_for(state, ticket)
  local best, best_busy, total, free, mine = nil, 0, 0, 0, 0
  for _, engine in ipairs(ticket.engines) do
    local capacity, busy = state.capacity[engine] or 0, state.by_engine[engine] or 0
    total = total + capacity
    free = free + math.max(0, capacity - busy)
    mine = mine + (state.by_both[engine .. ' ' .. ticket.caller] or 0)
    if busy < capacity and (not best or busy * state.capacity[best] < best_busy * capacity) then
      best, best_busy = engine, busy
    end
  end
  if mine == 0 or state.seen == 1 or total == 1 then
    return best
  end
  -- A slot is left for each who was here lately and holds none, up to half of them.
  local idle = math.max(0, state.seen - state.holders)
  if mine >= total - 1 or free <= math.min(idle, math.floor(total / 2)) then
    return nil
  end
  return best
end

-- Of those that can be served, who holds fewest; among equals who has waited longest.
local function next_of(state)
  local best, best_engine, fewest = nil, nil, 0
  for index, ticket in ipairs(state.line) do
    local held = state.by_caller[ticket.caller] or 0
    if not best or held < fewest then
      local engine = engine_for(state, ticket)
      if engine then
        best, best_engine, fewest = index, engine, held
      end
    end
  end
  return best, best_engine
end

-- Grant whatever can be granted, one slot after the other. A newcomer is not yet in `tickets`.
local function serve(newcomer)
  local state = read(newcomer)
  local index, engine = next_of(state)
  while index do
    local ticket = table.remove(state.line, index)
    redis.call('HDEL', TICKETS, ticket.id)
    redis.call('HSET', LEASES, ticket.id, whole(now) .. ' ' .. engine .. ' ' .. ticket.caller)
    -- Until its owner looks, so that a dead one holds it no longer than its place.
    redis.call('ZADD', ALIVE, 'NX', now + ticket_us, ticket.id)
    add(state, ticket.caller, engine)
    index, engine = next_of(state)
  end
  return state
end

-- Note everyone's place: the order of grants if slots came free one by one.
local function order_line(state)
  redis.call('DEL', PLACES)
  if #state.line == 0 then
    return
  end
  local held, order = {}, {}
  for index, ticket in ipairs(state.line) do
    local who = ticket.caller
    held[who] = held[who] or state.by_caller[who] or 0
    order[index] = {id = ticket.id, held = held[who], index = index}
    held[who] = held[who] + 1
  end
  table.sort(order, function(one, other)
    if one.held ~= other.held then
      return one.held < other.held
    end
    return one.index < other.index
  end)
  local places = {}
  for place, each in ipairs(order) do
    table.insert(places, each.id)
    table.insert(places, place - 1)
  end
  redis.call('HSET', PLACES, unpack(places))
end

local function standing(verdict, engine, place)
  local hold = redis.call('HGET', BOOK, 'hold') or ''
  return {verdict, engine or '', place or 0, redis.call('HLEN', TICKETS), hold}
end

local function bring_up_to_date()
  if purge() then
    order_line(serve())
  end
end

local operations = {}

-- waited, limit, share, then name and capacity of each candidate
function operations.enter()
  local waited, limit, share = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
  see(caller)
  purge()
  local engines = {}
  for index = 10, #ARGV, 2 do
    table.insert(engines, ARGV[index])
    redis.call('HSET', BOOK, 'capacity:' .. ARGV[index], ARGV[index + 1])
  end
  if redis.call('HEXISTS', LEASES, id) == 1 then
    return operations.look()
  end
  local since = now - waited
  if waited == 0 then -- no two newcomers are equal, and none is older than one before it
    since = math.max(now, (tonumber(redis.call('HGET', BOOK, 'since') or '0')) + 1)
    redis.call('HSET', BOOK, 'since', since)
  end
  local newcomer = {id = id, since = since, caller = caller, engines = engines}
  local state = serve(newcomer)
  local place, own
  for index, ticket in ipairs(state.line) do
    if ticket == newcomer then
      place = index
    elseif ticket.caller == caller then
      own = (own or 0) + 1
    end
  end
  if place then
    local refusal
    if (own or 0) >= share and share < limit then
      refusal = 'too_many_waiting'
    elseif #state.line > limit then
      refusal = 'queue_full'
    end
    if refusal then
      table.remove(state.line, place)
      forget(id)
      order_line(state)
      return standing(refusal)
    end
    local text = whole(since) .. ' ' .. table.concat(engines, ',') .. ' ' .. caller
    redis.call('HSET', TICKETS, id, text)
    redis.call('ZADD', ALIVE, now + ticket_us, id)
  end
  order_line(state)
  return operations.look()
end

function operations.look()
  see(caller)
  bring_up_to_date()
  local lease = redis.call('HGET', LEASES, id)
  if lease then
    redis.call('ZADD', ALIVE, now + lease_us, id)
    return standing('granted', string.match(lease, '^%d+ (%S+)'))
  end
  local place = redis.call('HGET', PLACES, id)
  if place then
    redis.call('ZADD', ALIVE, now + ticket_us, id)
    return standing('waiting', '', tonumber(place))
  end
  return standing('unknown')
end

-- engine, how long it was held, 1 to take it again whatever happened
function operations.renew()
  local engine, held_us, is_forced = ARGV[7], tonumber(ARGV[8]), ARGV[9] == '1'
  see(caller)
  bring_up_to_date()
  if redis.call('HEXISTS', LEASES, id) == 0 then
    local state = read()
    if not is_forced and (state.by_engine[engine] or 0) >= (state.capacity[engine] or 0) then
      return 0
    end
    redis.call('HSET', LEASES, id, whole(now - held_us) .. ' ' .. engine .. ' ' .. caller)
    redis.call('ZADD', ALIVE, now + lease_us, id)
    order_line(serve()) -- one less to leave a slot for
  end
  redis.call('ZADD', ALIVE, now + lease_us, id)
  return 1
end

-- then further ids
function operations.leave()
  see(caller)
  purge()
  local leaving = {id, unpack(ARGV, 7)}
  for _, each in ipairs(leaving) do
    local lease = redis.call('HGET', LEASES, each)
    if lease then
      local hold = math.max(0, now - tonumber(string.match(lease, '^%d+')))
      local before = tonumber(redis.call('HGET', BOOK, 'hold') or hold)
      redis.call('HSET', BOOK, 'hold', before + (hold - before) * SMOOTHING)
    end
  end
  forget(unpack(leaving))
  order_line(serve())
  return 1
end

function operations.count()
  bring_up_to_date()
  return {redis.call('HLEN', LEASES), redis.call('HLEN', TICKETS)}
end

local reply = operations[operation]()
for _, key in ipairs(KEYS) do
  -- Not `call`: where the rights of an older version lack it, a step that is done must not fail.
  redis.pcall('PEXPIRE', key, KEPT_MS)
end
return reply
