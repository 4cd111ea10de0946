-- What wrk sends and what it keeps, for serving_load.py.
--
-- Without TZK_ARRIVALS it is a closed loop: each thread has one connection (wrk -t N -c N), so that
-- a request and its answer are matched, and times are taken here. wrk's own percentiles would add
-- samples for what it takes for coordinated omission.
-- With TZK_ARRIVALS it is an open loop of one thread: a free connection takes the next arrival.
--
-- TZK_REQUESTS  whole HTTP requests, each after a line with its length
-- TZK_ARRIVALS  the milliseconds at which requests are due, one a line
-- TZK_RESULT    where the result goes, as JSON

local ffi = require("ffi")
ffi.cdef [[
  typedef struct { long s; long ns; } tzk_time;
  int clock_gettime(int clock, tzk_time *into);
]]

local MONOTONIC, LATE_MS = 1, 5
local into = ffi.new("tzk_time")

local function microseconds()
  ffi.C.clock_gettime(MONOTONIC, into)
  return tonumber(into.s) * 1e6 + tonumber(into.ns) / 1e3
end

local threads = {}

function setup(thread)
  thread:set("offset", #threads * 37)  -- so that threads do not send the same images in step
  table.insert(threads, thread)
end

sent, late, latest = 0, 0, 0
times, statuses = {}, {}
local requests, arrivals, began
local taken, due, started = 0, {}, 0
local verified

function init()
  requests = {}
  local file = assert(io.open(os.getenv("TZK_REQUESTS"), "rb"))
  for length in function() return file:read("*n") end do
    file:read(1)
    table.insert(requests, file:read(length))
  end
  file:close()
  if os.getenv("TZK_ARRIVALS") then
    arrivals = {}
    for line in io.lines(os.getenv("TZK_ARRIVALS")) do table.insert(arrivals, tonumber(line)) end
  end
end

-- A function here means to wrk that every request is delayed, so that a closed loop has none.
if os.getenv("TZK_ARRIVALS") then
  function delay()
    local now = microseconds()
    began = began or now
    taken = taken + 1
    if taken > #arrivals then return 1e9 end
    table.insert(due, arrivals[taken])
    return math.max(0, math.floor(arrivals[taken] - (now - began) / 1e3 + 0.5))
  end
end

function request()
  -- wrk asks the first thread once before anything runs, to see whether it pipelines.
  if offset == 0 and not verified then
    verified = true
    return requests[1]
  end
  sent = sent + 1
  started = microseconds()
  if arrivals then
    local behind = (started - began) / 1e3 - due[sent]
    latest = math.max(latest, behind)
    if behind > LATE_MS then late = late + 1 end
  end
  return requests[(sent + offset) % #requests + 1]
end

function response(status)
  statuses[status] = (statuses[status] or 0) + 1
  if not arrivals then table.insert(times, microseconds() - started) end
end

local function joined(pairs_of)
  local parts = {}
  for key, value in pairs(pairs_of) do table.insert(parts, string.format('"%s": %d', key, value)) end
  return "{" .. table.concat(parts, ", ") .. "}"
end

function done(summary, latency)
  local all = {sent = 0, late = 0}
  local counted, seconds, worst = {}, {}, 0
  for _, thread in ipairs(threads) do
    for name in pairs(all) do all[name] = all[name] + thread:get(name) end
    worst = math.max(worst, thread:get("latest"))
    for status, count in pairs(thread:get("statuses")) do
      counted[status] = (counted[status] or 0) + count
    end
    for _, time in ipairs(thread:get("times")) do
      table.insert(seconds, string.format("%.6f", time / 1e6))
    end
  end
  if os.getenv("TZK_ARRIVALS") then
    for index = 1, #latency do
      local value, count = latency(index)
      for _ = 1, count do table.insert(seconds, string.format("%.6f", value / 1e6)) end
    end
  end
  local errors = summary.errors
  local file = assert(io.open(os.getenv("TZK_RESULT"), "w"))
  file:write(string.format(
    '{"seconds": %.6f, "sent": %d, "late": %d, "latest_ms": %.3f, "statuses": %s, '
      .. '"lost": %s, "latencies": [%s]}\n',
    summary.duration / 1e6, all.sent, all.late, worst, joined(counted),
    joined({connect = errors.connect, read = errors.read, write = errors.write,
      timeout = errors.timeout}),
    table.concat(seconds, ", ")))
  file:close()
end
