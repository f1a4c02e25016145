-- Numbers figures, tables, sections and equations, and turns @fig-x, @tbl-x, @sec-x, @eq-x into links to them.

local names = { fig = "Figure", tbl = "Table", sec = "Section", eq = "Equation" }
local counts = { fig = 0, tbl = 0, sec = 0, eq = 0 }
local text_of = {}

local function number(id)
  local kind = id:match("^(%a+)-")
  if not names[kind] then return nil end
  counts[kind] = counts[kind] + 1
  text_of[id] = names[kind] .. " " .. counts[kind]
  return text_of[id]
end

-- The last paragraph of a figure or a table is its caption.
local function label_block(block)
  local text = number(block.identifier)
  if not text then return nil end
  local caption = block.content:remove()
  block.classes:insert(block.identifier:match("^tbl") and "table" or "figure")
  block.content:insert(pandoc.Para(pandoc.Span({ pandoc.Str(text .. ": "), pandoc.Span(caption.content) }, { class = "caption" })))
  return block
end

local function rename_alt(image)
  image.attributes.alt, image.attributes["fig-alt"] = image.attributes["fig-alt"], nil
  return image
end

local function label_header(header)
  if header.identifier:match("^sec%-") then
    text_of[header.identifier] = "“" .. pandoc.utils.stringify(header) .. "”"
  end
end

-- An equation is a paragraph that ends in {#eq-x}.
local function label_equation(paragraph)
  local last = paragraph.content[#paragraph.content]
  local id = last and last.t == "Str" and last.text:match("^{#(eq%-[%w-]+)}$")
  if not id then return nil end
  number(id)
  paragraph.content[#paragraph.content] = pandoc.Span("(" .. counts.eq .. ")", { class = "equation-number" })
  return pandoc.Div(paragraph, { id = id, class = "equation" })
end

-- A callout shows its title; one that is to be folded becomes <details>.
local function callout(div)
  local title = div.attributes.title
  if not title or not div.classes[1]:match("^callout") then return nil end
  div.attributes.title = nil
  if div.attributes.collapse ~= "true" then
    div.content:insert(1, pandoc.Para(pandoc.Strong(title)))
    return div
  end
  div.attributes.collapse = nil
  div.content:insert(1, pandoc.RawBlock("html", "<details><summary>" .. title .. "</summary>"))
  div.content:insert(pandoc.RawBlock("html", "</details>"))
  return div
end

local function link_page(target)
  target.target = target.target:gsub("%.qmd$", ".html"):gsub("%.qmd#", ".html#")
  return target
end

local function link(cite)
  local parts = pandoc.List()
  for _, citation in ipairs(cite.citations) do
    local text = text_of[citation.id]
    if not text then return nil end
    if #parts > 0 then parts:insert(pandoc.Str(", ")) end
    parts:insert(pandoc.Link(text, "#" .. citation.id))
  end
  return parts
end

return {
  { Div = label_block, Header = label_header, Para = label_equation, Image = rename_alt },
  { Cite = link, Div = callout, Link = link_page },
}
