"""Prepares SkyPilot's state directory and becomes the SkyPilot API server.

SkyPilot creates its first user from SKYPILOT_INITIAL_BASIC_AUTH and never looks at that variable again
(sky/users/permission.py, _maybe_initialize_basic_auth_user, 0.14.1): a password that was changed in the Secret has to be
written to its database, which is done here, before the server runs.

The hash is apr1: each request verifies it, and bcrypt would cost a quarter of a second of CPU each time.
"""

import hashlib
import os
import shutil
import sys
from pathlib import Path

from passlib.hash import apr_md5_crypt

SEED = Path("/etc/skyoperator/seed/..data")  # the kubelet's link to the ConfigMap's present content
CREDENTIALS = Path("/etc/skyoperator/credentials")
STATE = Path.home() / ".sky"


def copy_seed() -> None:
    """Write config.yaml, and the offline catalogs if there are any, over those of the last start."""
    root = SEED.resolve()
    for source in filter(Path.is_file, root.rglob("*")):
        target = STATE / source.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def update_password(username: str, password: str, password_hash: str) -> None:
    """Store the hash if SkyPilot knows the user with another password. A new user is left to SkyPilot, which makes it admin."""
    # Takes four seconds, which the first start need not spend.
    from sky import global_user_state  # noqa: PLC0415
    from sky.server.common import crypt_ctx  # noqa: PLC0415

    user_id = hashlib.md5(username.encode(), usedforsecurity=False).hexdigest()[:8]
    user = global_user_state.get_user(user_id)
    if user is None or (user.password and crypt_ctx.verify(password, user.password)):
        return
    user.password = password_hash
    global_user_state.add_or_update_user(user)
    print(f"The password of {username} was changed in the Secret: stored in SkyPilot's database.", flush=True)


def main() -> None:
    """Never returns."""
    username, password = ((CREDENTIALS / key).read_text().strip() for key in ("username", "password"))
    if not username or ":" in username or not password:
        sys.exit("The credentials Secret needs a username without colon and a password. Fix it and restart this pod.")
    STATE.chmod(0o700)  # the kubelet makes the folder of a subPath as open as the volume's root
    copy_seed()
    password_hash = apr_md5_crypt.hash(password)
    os.environ["IS_SKYPILOT_SERVER"] = "true"  # or SkyPilot ignores SKYPILOT_DB_CONNECTION_URI (sky/utils/db/db_utils.py)
    if (STATE / "state.db").exists() or "SKYPILOT_DB_CONNECTION_URI" in os.environ:
        update_password(username, password, password_hash)
    os.environ["SKYPILOT_INITIAL_BASIC_AUTH"] = f"{username}:{password_hash}"
    os.execvp("sky", ["sky", "api", "start", "--deploy", "--foreground"])


if __name__ == "__main__":
    main()
