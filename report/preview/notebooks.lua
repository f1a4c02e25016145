-- Pages of executed notebooks: pandoc lua notebooks.lua TEMPLATE STYLE FILE.md … writes FILE.html beside each.

local function read(path)
  local file = assert(io.open(path))
  local text = file:read("a")
  file:close()
  return text
end

local template, style = pandoc.template.compile(read(arg[1])), read(arg[2])

for i = 3, #arg do
  local document = pandoc.read(read(arg[i]), "markdown"):walk({
    Image = function(image)
      image.attributes.alt, image.attributes["fig-alt"] = image.attributes["fig-alt"], nil
      return image
    end,
  })
  local options = { template = template, html_math_method = "mathml", variables = { style = style, notebook = "true" } }
  local file = assert(io.open((arg[i]:gsub("%.md$", ".html")), "w"))
  file:write(pandoc.write(document, "html5", options))
  file:close()
end
