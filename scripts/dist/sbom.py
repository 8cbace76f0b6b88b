"""Takes out of an SBOM what is the building machine's: sbom.py FILE FOLDER prints it with places relative to FOLDER."""

import json
import sys

text = open(sys.argv[1], encoding="utf-8").read().replace(sys.argv[2], "/flowtel")
bill = json.loads(text)
assert bill["bomFormat"] == "CycloneDX" and bill["components"], "no bill of materials"
# A random number; what makes this one itself are its sums in SHA256SUMS.
bill.pop("serialNumber", None)
json.dump(bill, sys.stdout, indent=1, sort_keys=True)
print()
