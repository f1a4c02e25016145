-- {{< cell label >}}: a labelled cell of an executed notebook, as report/extract.py wrote it into report/_cells/.
-- (Quarto expands {{< include … >}} before it runs extract.py, so that in a fresh clone there would be nothing to include.)

return {
  cell = function(arguments)
    local path = quarto.project.directory .. "/report/_cells/" .. pandoc.utils.stringify(arguments[1]) .. ".md"
    local file = assert(io.open(path), path .. " is not there")
    local text = file:read("a")
    file:close()
    return quarto.utils.string_to_blocks(text)
  end,
}
