"""The detection network and what runs it: features, knowledge, boxes, attributes, image labels."""
