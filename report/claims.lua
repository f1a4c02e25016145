-- Shows the verdicts on claims, sentences that are marked [so]{.claim #id}, which report/claims.py checks.
-- One that holds gets a link to its check; one that does not is marked, with the numbers; one that the suite has no runs
-- for goes. ::: {.all-claims} ::: is filled with all of them.
--
-- The verdicts are those of report/_cells/claims.json below the project's folder, which sparse_vae.report.claims writes.
-- Without Quarto the project's folder is the working directory, and `project-offset` in the metadata leads there from
-- the page (.. if it is not given).

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
  local place = html and pandoc.Link("its chapter", page_of(claim.chapter) .. "#" .. id) or pandoc.Str(claim.title)
  local said = pandoc.read(sentence, "markdown").blocks
  said[#said].content:extend({ pandoc.Str(" ("), place, pandoc.Str(")") })
  local numbers, code = pandoc.Para({ pandoc.Str(claim.numbers) }), pandoc.CodeBlock(claim.check, { class = "python" })
  local verdict, suite = titles[claim.holds] or "Left out here", "suite " .. claim.suite
  local blocks = pandoc.Blocks(said)
  if html then
    blocks:insert(pandoc.RawBlock("html", string.format("<details><summary><strong>%s</strong> (%s): numbers and check</summary>",
      verdict, suite)))
    blocks:extend({ numbers, code, pandoc.RawBlock("html", "</details>") })
  else
    blocks:extend({ pandoc.Para({ pandoc.Strong(verdict), pandoc.Str(" (" .. suite .. "). "), pandoc.Str(claim.numbers) }), code })
  end
  return pandoc.Div(blocks, { id = id, class = "claim-entry" })
end

-- The headings take the place of the Div: those inside of one are in no table of contents.
local function list_claims(div)
  if not div.classes:includes("all-claims") then return nil end
  local ids, blocks, chapter = {}, pandoc.Blocks({}), nil
  for id in pairs(read_verdicts()) do table.insert(ids, id) end
  table.sort(ids, function(a, b) return verdicts[a].position < verdicts[b].position end)
  local sentences, failing = {}, {}
  for _, claim in pairs(verdicts) do
    sentences[claim.chapter] = (sentences[claim.chapter] or 0) + 1
    failing[claim.chapter] = failing[claim.chapter] or claim.holds == false
  end
  for _, id in ipairs(ids) do
    local claim = verdicts[id]
    if claim.chapter ~= chapter then
      if chapter then blocks:insert(pandoc.RawBlock("html", "</details>")) end
      chapter = claim.chapter
      blocks:insert(pandoc.Header(2, claim.title, { id = "in-" .. chapter:gsub("%.qmd$", ""):gsub(".*/", "") }))
      blocks:insert(pandoc.RawBlock("html", (failing[chapter] and "<details open>" or "<details>") .. "<summary>"
        .. sentences[chapter] .. (sentences[chapter] == 1 and " sentence" or " sentences") .. "</summary>"))
    end
    blocks:insert(describe(id, claim))
  end
  if chapter then blocks:insert(pandoc.RawBlock("html", "</details>")) end
  return blocks
end

local function read_offset(meta)
  if meta["project-offset"] then to_root = pandoc.utils.stringify(meta["project-offset"]) end
end

return { { Meta = read_offset }, { Div = list_claims }, { Span = show_verdict, Para = drop_empty, Plain = drop_empty } }
