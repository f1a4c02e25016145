-- ::: {.bars} :::, in which every [number]{.bar} becomes a bar: each number's share of the largest, for the style sheet.
-- Runs when variables are in place.

local function draw_bars(div)
  if not div.classes:includes("bars") then return nil end
  local largest = 0
  local function each_bar(change)
    return div:walk({ Span = function(span)
      if span.classes:includes("bar") then return change(span, tonumber((pandoc.utils.stringify(span):match("^[%d.]+")))) end
    end })
  end
  each_bar(function(_, number) largest = math.max(largest, number or 0) end)
  return each_bar(function(span, number)
    if not number or largest == 0 then return nil end
    span.attributes.style = string.format("--share: %.3f", number / largest)
    return span
  end)
end

return { { Div = draw_bars } }
