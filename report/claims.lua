-- Shows the verdicts on claims, sentences that are marked [so]{.claim #id}, which report/claims.py checks.
-- One that holds gets a link to its check; one that does not is marked, with the numbers; one that the suite has no runs
-- for goes. ::: {.all-claims} ::: is filled with all of them.
--
-- The verdicts are those of report/_cells/claims.json below the project's folder, which sparse_vae.report.claims writes.

local project = os.getenv("QUARTO_PROJECT_DIR") or "."
local file_name = project .. "/report/_cells/claims.json"
local html = FORMAT:match("html") ~= nil
local to_root = quarto and quarto.project.offset or ".."
local verdicts

local function read_verdicts()
  if not verdicts then
    local file = io.open(file_name)
    if not file then error(file_name .. " is not there: build the site with `make site`, or run its pre-render script") end
    verdicts = pandoc.json.decode(file:read("a"), false)
    file:close()
  end
  return verdicts
end

local function warn(text)
  if quarto then quarto.log.warning(text) else io.stderr:write("[WARNING] " .. text .. "\n") end
end

local function page_of(chapter)
  return to_root .. "/" .. chapter:gsub("%.qmd$", ".html")
end

local function link_to_check(id, content, label, numbers)
  if not html then return content end
  return pandoc.Link(content, page_of("report/claims.qmd") .. "#" .. id, numbers,
    { class = "claim-check", ["aria-label"] = label })
end

local function show_verdict(span)
  if not span.classes:includes("claim") then return nil end
  local claim = read_verdicts()[span.identifier]
  if not claim then
    warn("claim " .. span.identifier .. " has no verdict in " .. file_name)
    return nil
  end
  if claim.holds == true then
    if html then
      span.content:insert(pandoc.Superscript(link_to_check(span.identifier, "✓", "checked: how", claim.numbers)))
    end
  elseif claim.holds == false then
    span.classes:insert("claim-false")
    local note = "— not so in these results: " .. claim.numbers .. "."
    span.content:extend({ pandoc.Space(), link_to_check(span.identifier, pandoc.Str(note), "not so: how it was checked") })
  else
    return {}
  end
  return span
end

-- A paragraph goes when all of its sentences went.
local function drop_empty(paragraph)
  if pandoc.utils.stringify(paragraph):match("^%s*$") and #paragraph.content:filter(
      function(inline) return inline.t ~= "Space" and inline.t ~= "SoftBreak" end) == 0 then
    return {}
  end
end

local titles = { [true] = "✓ It holds", [false] = "✗ It does not hold in these results" }

local function describe(id, claim)
  local sentence = claim.sentence:gsub("{{< var claims%.([%w-]+)%.([%w_-]+) >}}",
    function(other, name) return read_verdicts()[other].values[name] end)
  local body = pandoc.read(sentence, "markdown").blocks
  local verdict = titles[claim.holds] or "Left out here"
  local where = "suite " .. claim.suite
  body:insert(pandoc.Para({ pandoc.Strong(verdict), pandoc.Str(" (" .. where .. "): "), pandoc.Str(claim.numbers) }))
  local code = pandoc.CodeBlock(claim.check, { class = "python" })
  if html then
    body:extend({ pandoc.RawBlock("html", "<details><summary>The check</summary>"), code,
      pandoc.RawBlock("html", "</details>") })
  else
    body:insert(code)
  end
  return pandoc.Div(body, { id = id, class = "claim-entry" })
end

local function list_claims(div)
  if not div.classes:includes("all-claims") then return nil end
  local ids, blocks = {}, pandoc.Blocks({})
  for id in pairs(read_verdicts()) do table.insert(ids, id) end
  table.sort(ids, function(a, b) return verdicts[a].position < verdicts[b].position end)
  local chapter
  for _, id in ipairs(ids) do
    local claim = verdicts[id]
    if claim.chapter ~= chapter then
      chapter = claim.chapter
      blocks:insert(pandoc.Header(2, html and pandoc.Link(claim.title, page_of(chapter)) or claim.title))
    end
    blocks:insert(describe(id, claim))
  end
  div.content = blocks
  return div
end

return { { Div = list_claims }, { Span = show_verdict, Para = drop_empty, Plain = drop_empty } }
