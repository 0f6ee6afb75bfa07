"""Run by the tests on two processes: several commands of one launch, one after the other, as a JSON list of lists.

``{rank}`` in an argument is the process's own number.
"""

import json
import os
import sys

from ddm import cli

if __name__ == "__main__":
    leave, cli.leave_the_others = cli.leave_the_others, lambda: None
    commands = json.loads(sys.argv[1].replace("{rank}", os.environ["RANK"]))
    statuses = [cli.main(each) for each in commands]
    leave()
    if os.environ["RANK"] == "0":
        sys.stdout.write(json.dumps(statuses) + "\n")
