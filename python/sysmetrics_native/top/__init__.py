"""The live view: what `sysmetrics-native top` shows, and where it comes from."""
