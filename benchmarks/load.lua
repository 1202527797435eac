-- Closed-loop load for wrk: sends the requests of a file, one after the other, and reports in JSON.
-- The requests are made beforehand, so that per request wrk only takes the next one.
-- argument 1: a file of requests, each ended by a zero byte; argument 2: how many there are
local requests, count, at = {}, 0, 0

function init(args)
  local file = assert(io.open(args[1], "rb"))
  local text = file:read("*a")
  file:close()
  local first = 1
  while true do
    local last = text:find("\0", first, true)
    if not last then break end
    count = count + 1
    requests[count] = text:sub(first, last - 1)
    first = last + 1
  end
  assert(count == tonumber(args[2]), "the file of requests is cut short")
end

function request()
  at = at % count + 1
  return requests[at]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '\nRESULT {"requests":%d,"duration_us":%d,"bytes":%d,"p50_us":%d,"p99_us":%d,"p999_us":%d,' ..
    '"errors":{"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}}\n',
    summary.requests, summary.duration, summary.bytes,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
    errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
