"""Our short ways against nginx's own: the same outcome for any bytes."""

import os
import random
import re
import subprocess

import pytest

from harness import settings

SOURCE = settings.ROOT / "build/source/installed/nginx"
HEADERS = 2_000_000 if os.environ.get("TEST_SOAK") == "1" else 200_000


# where it comes first, all of nginx is compiled for it
@pytest.mark.timeout(300 * settings.SCALE)
def test_headers_are_read_as_by_nginx():
    if not (SOURCE / "configure").exists():
        pytest.skip("no source of nginx: tools/fetch-nginx")
    if settings.STOCK:
        pytest.skip("compares the module with nginx's own")
    program = settings.ROOT / "build/differ-header"
    made = subprocess.run(
        ["make", "-s", program.relative_to(settings.ROOT)], cwd=settings.ROOT,
        capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    seed = str(random.randrange(10 ** 9))
    done = subprocess.run([program, seed, str(HEADERS)],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"seed {seed}: {done.stdout}{done.stderr}"
    found = [int(number) for number in re.findall(r"\d+", done.stdout)]
    # each way has been gone often
    assert min(found) > HEADERS // 10, done.stdout
