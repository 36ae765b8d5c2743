import os
import tempfile

# The models of the tests are so small that threads cost more than they bring, above all where
# other processes use the cores. Before torch is imported; tests of threads set their number.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What the tests remember of pictures goes with them.
_cache = tempfile.TemporaryDirectory(prefix="d2_ssod_cache_")
os.environ["XDG_CACHE_HOME"] = _cache.name
