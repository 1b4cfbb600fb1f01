// The command `report`: run folders to one page.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace nf::tools {

/// HTML about all runs of these folders, with the memory of their steps, found by running them
/// again on the meta device. Throws DataError for a folder that is no run's or damaged; a step that
/// can't be run again is said in the page.
std::string report_page(const std::vector<std::filesystem::path>& folders);

}  // namespace nf::tools
