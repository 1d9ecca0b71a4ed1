/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tapback's device, without a xenstore. */
#include "control/tapback/device.h"

#include "tests/support/suite.h"

enum { DEVICE_ENTRIES = 14 };

START_TEST(a_device_that_is_gone_is_noticed_by_each_entry)
{
	static struct device gone;

	switch (_i) {
	case 0:
		device_free(&gone);
		break;
	case 1:
		device_look(&gone);
		break;
	case 2:
		device_mark(&gone);
		break;
	case 3:
		device_write(&gone, "key", "value");
		break;
	case 4:
		device_state(&gone, 4);
		break;
	case 5:
		device_error(&gone, "it failed");
		break;
	case 6:
		device_say(&gone, "running", NULL);
		break;
	case 7:
		device_fail(&gone, "it failed");
		break;
	case 8:
		link_connect(&gone);
		break;
	case 9:
		link_disconnect(&gone);
		break;
	case 10:
		watchdog_look(&gone);
		break;
	case 11:
		death_bury(&gone, "it died");
		break;
	case 12:
		device_note_successor(&gone);
		break;
	case 13:
		device_again_in(&gone, 1);
		break;
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("device");

	SUITE_ADD_LOOP_ABORT(s, a_device_that_is_gone_is_noticed_by_each_entry, DEVICE_ENTRIES);
	return suite_run(s);
}
