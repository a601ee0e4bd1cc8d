"""The logic of CT Slice Tools: annotations, landmark points and predictions as MRML nodes."""
