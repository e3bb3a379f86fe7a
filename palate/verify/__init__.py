"""`palate verify`: whether every engine gives a folder's scores, by every way that leads to them."""
