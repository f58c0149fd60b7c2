-- What does wrk send, and how does it report?
--
-- Arguments after `--`: METHOD BODY-BYTES. The request is fixed, so wrk formats it once. The
-- result is one line of JSON, because the numbers that wrk prints itself are rounded.

function init(args)
   wrk.method = args[1] or "GET"
   local bytes = tonumber(args[2] or "0")
   if bytes > 0 then
      wrk.body = string.rep("x", bytes)
   end
end

function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      '\nRESULT {"completed": %d, "seconds": %.6f, "failed": %d,'
         .. ' "p50": %d, "p90": %d, "p99": %d, "p999": %d}\n',
      summary.requests, summary.duration / 1e6,
      errors.connect + errors.read + errors.write + errors.timeout + errors.status,
      latency:percentile(50), latency:percentile(90), latency:percentile(99),
      latency:percentile(99.9)))
end
