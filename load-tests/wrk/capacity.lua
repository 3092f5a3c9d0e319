-- wrk script of the performance measurement. Prints one line of JSON with the results. With
-- PRODUCTS, a comma-separated list of IDs, each request orders one unit of one product.

local products = {}
for id in string.gmatch(os.getenv("PRODUCTS") or "", "[^,]+") do products[#products + 1] = id end
local ordering = #products > 0
local prefix = os.getenv("PREFIX") or "wrk"

local thread_of_all

function setup(thread) thread_of_all = thread end

other, later = 0, 0
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
        if status == 202 then later = later + 1 elseif status ~= 201 then other = other + 1 end
    end
end

function done(summary, latency)
    local errors = summary.errors
    local wrong = errors.connect + errors.read + errors.write + errors.timeout + errors.status
    if ordering then wrong = math.max(wrong, thread_of_all:get("other")) end
    print(string.format('{"requests":%d,"wrong":%d,"later":%d,"seconds":%.6f,"p50":%.4f,"p99":%.4f}', summary.requests, wrong,
        thread_of_all:get("later"), summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
