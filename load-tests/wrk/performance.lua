-- wrk script of the performance measurement. Prints one line of JSON with the results. With
-- PRODUCTS, a comma-separated list of IDs, each request orders one unit of one product.

local products = {}
for id in string.gmatch(os.getenv("PRODUCTS") or "", "[^,]+") do products[#products + 1] = id end
local ordering = #products > 0
local prefix = os.getenv("PREFIX") or "wrk"

local only_thread

function setup(thread) only_thread = thread end

unexpected, deferred = 0, 0
local sent = 0

if ordering then
    request = function()
        sent = sent + 1
        local headers = {
            ["authorization"] = wrk.headers["authorization"],
            ["content-type"] = "application/json",
            ["idempotency-key"] = prefix .. "-" .. sent,
        }
        local body = '{"items":[{"productId":"' .. products[sent % #products + 1] .. '","quantity":1}]}'
        return wrk.format("POST", nil, headers, body)
    end
    -- 201 is a finished order, 202 one to be finished later.
    response = function(status)
        if status == 202 then deferred = deferred + 1 elseif status ~= 201 then unexpected = unexpected + 1 end
    end
end

function done(summary, latency)
    local errors = summary.errors
    local wrong = errors.connect + errors.read + errors.write + errors.timeout + errors.status
    if ordering then wrong = math.max(wrong, only_thread:get("unexpected")) end
    print(string.format('{"requests":%d,"wrong":%d,"deferred":%d,"seconds":%.6f,"p50":%.4f,"p99":%.4f}', summary.requests, wrong,
        only_thread:get("deferred"), summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
