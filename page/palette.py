"""The colours of charts, paths and marks: they stand out on light and on dark."""

AMBER = "#c77d1e"
VIOLET = "#8a6fe0"
BLUE = "#3b8bb0"
TEAL = "#3f8f7a"
GREY = "#8b9491"
